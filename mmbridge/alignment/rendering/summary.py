"""What was found, in a line for each score and bridge."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from rich.cells import cell_len

from mmbridge.alignment.rendering.comparison import Comparison, over_depths
from mmbridge.alignment.rendering.markup import legible, short, spelt
from mmbridge.alignment.rendering.numerals import number, spanned
from mmbridge.alignment.report import AlignmentReport, Better, Scalar, some

ARROWS: dict[Better, str] = {"higher": "↑", "lower": "↓", "neither": "·"}
_STEPS = "▁▂▃▄▅▆▇█"
_NAME = 40


@dataclass(frozen=True, slots=True)
class Finding:
    """A scalar of one bridge, or the mean of a curve at ``site`` whose values over depth are ``curve`` (L,)."""

    number: int
    bridge: str
    scalar: Scalar
    site: str = ""
    curve: tuple[float, ...] = ()


def findings(comparison: Comparison) -> list[list[Finding]]:
    """Those of one score, groups and site together, in the order of the bridges: curves, then scalars."""
    curves = [
        [
            Finding(
                each.number,
                each.bridge,
                over_depths(each.figure),
                each.figure.site,
                tuple(value.value for value in each.figure.values),
            )
            for each in owned
        ]
        for owned in comparison.curves.values()
    ]
    return curves + [
        [Finding(each.number, each.bridge, each.figure) for each in owned] for owned in comparison.scalars.values()
    ]


def render(reports: Sequence[AlignmentReport]) -> str:
    """Plain text: means and scalars with interval, control, chance, and each curve as a row of bars.

    Bars of one score are on one scale, from the least to the largest value that any bridge has.

    Raises:
        UserError: as ``Comparison``.
    """
    comparison = Comparison(reports)
    lines = [f"alignment of {', '.join(short(name, _NAME) for name in comparison.names)}"]
    lines += [f"  {legible(key)}: {legible(', '.join(values))}" for key, values in comparison.facts.items()]
    lines.append("means over depth and single scores, with 95 % intervals (↑ higher is better aligned, ↓ lower)")
    for found in findings(comparison):
        score, of, site = found[0].scalar.score, found[0].scalar.of, found[0].site
        definition = comparison.definitions[score]
        where = f", {site}" if site else ""
        lines.append(f"{legible(definition.title)} ({score}), {' and '.join(of)}{where} {ARROWS[definition.better]}")
        lines += _table([_cells(each, found) for each in found])
    for report in comparison.reports:
        lines += _words(report)
        if report.cost:
            factors = ", ".join(f"{legible(name)} {factor:.2f}" for name, factor in report.cost.items())
            lines.append(f"time of {short(report.bridge, _NAME)} over that of plain forward passes: {factors}")
    return "\n".join(lines)


def _words(report: AlignmentReport) -> list[str]:
    """The likeliest words at the input, midway and at the end."""
    if not report.words:
        return []
    lines = [f"likeliest words of {short(report.bridge, _NAME)}"]
    for each in some(report.words):
        for group, said in each.said.items():
            shown = ", ".join(f"{legible(spelt(word))} {share:.2f}" for word, share in said[:5])
            lines.append(f"  depth {each.depth}, {group}: {shown}")
    return lines


def _cells(finding: Finding, among: Sequence[Finding]) -> list[str]:
    scalar = finding.scalar
    return [
        short(finding.bridge, _NAME),
        spanned(scalar.value),
        f"control {spanned(scalar.control)}",
        f"chance {number(scalar.chance)}",
        sparkline(finding.curve, [value for each in among for value in each.curve]),
    ]


def sparkline(values: Sequence[float], among: Sequence[float]) -> str:
    """A bar for each value, between the least and the largest of ``among``; a space for what is not finite."""
    finite = [value for value in among if isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    size = (high - low) or 1.0
    return "".join(
        _STEPS[round((value - low) / size * (len(_STEPS) - 1))] if isfinite(value) else " " for value in values
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
