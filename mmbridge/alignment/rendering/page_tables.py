"""The page's tables: what was found, what scores mean, what they cost, and the numbers under each chart."""

from collections.abc import Iterable, Sequence

from mmbridge.alignment.rendering.comparison import Comparison
from mmbridge.alignment.rendering.long_form import COLUMNS, Row
from mmbridge.alignment.rendering.markup import escaped, spelt, tag
from mmbridge.alignment.rendering.numerals import NOTHING, exact, number, spanned
from mmbridge.alignment.rendering.summary import ARROWS, Finding, findings
from mmbridge.alignment.report import Definition

_TEXTS = ("bridge", "score", "of", "site", "row", "column")
"""Columns of rows that are left out where they say the same everywhere."""


def name(text: str) -> str:
    """Of a bridge: cut where it is too long, and whole in the tooltip."""
    return tag("bdi", escaped(text), class_="name", title=text)


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], **attributes: object) -> str:
    """Headers as text, cells as markup."""
    head = tag("tr", "".join(tag("th", escaped(header), scope="col") for header in headers))
    body = "".join(tag("tr", "".join(tag("td", cell) for cell in row)) for row in rows)
    return tag("div", tag("table", tag("thead", head) + tag("tbody", body), **attributes), class_="wide")


def summary(comparison: Comparison) -> str:
    """Every scalar and every curve's mean beside control and chance, bridges under each other."""
    headers = ("score", "bridge", "value [95 % interval]", "control", "chance", "better")
    head = tag("thead", tag("tr", "".join(tag("th", header, scope="col") for header in headers)))
    bodies = (_found(found, comparison.definitions[found[0].scalar.score]) for found in findings(comparison))
    return tag("div", tag("table", head + "".join(bodies)), class_="wide")


def _found(found: Sequence[Finding], definition: Definition) -> str:
    scalar = found[0].scalar
    where = [" and ".join(scalar.of), *([found[0].site, "mean over depth"] if found[0].site else [])]
    told = tag("p", escaped(", ".join(filter(None, where))), class_="small")
    score = tag("th", escaped(definition.title) + told, scope="rowgroup", rowspan=len(found))
    rows = []
    for each in found:
        numbers = (spanned(each.scalar.value), spanned(each.scalar.control), number(each.scalar.chance))
        cells = tag("td", name(each.bridge)) + "".join(tag("td", told, class_="number") for told in numbers)
        rows.append(cells + tag("td", better(definition)))
    return tag("tbody", "".join(tag("tr", (score if place == 0 else "") + row) for place, row in enumerate(rows)))


def better(definition: Definition) -> str:
    """An arrow towards what is better aligned, and words for who cannot see it."""
    words = f"{definition.better} is better aligned"
    return tag("span", ARROWS[definition.better], role="img", title=words, aria_label=words)


def words(comparison: Comparison) -> Iterable[str]:
    """What each bridge's LLM would say, a row for each depth."""
    for report in comparison.reports:
        if report.words:
            groups = list(dict.fromkeys(group for each in report.words for group in each.said))
            rows = (
                (escaped(str(each.depth)), *(_said(each.said.get(group, ())) for group in groups))
                for each in report.words
            )
            yield tag("figure", tag("figcaption", name(report.bridge)) + table(("depth", *groups), rows, class_="text"))


def _said(words: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{tag('q', escaped(spelt(word)))} {share:.2f}" for word, share in words)


def definitions(comparison: Comparison) -> str:
    """What each score is."""
    headers = ("score", "formula", "unit", "better", "chance", "control", "source")
    rows = (
        (
            escaped(each.title) + tag("p", tag("code", escaped(score)), class_="small"),
            tag("code", escaped(each.formula)),
            escaped(each.unit),
            f"{better(each)} {each.better}",
            escaped(each.chance or NOTHING),
            escaped(each.control or NOTHING),
            escaped(each.source),
        )
        for score, each in comparison.definitions.items()
    )
    return table(headers, rows, class_="text")


def costs(comparison: Comparison) -> str:
    """Time over that of plain forward passes, a row for each bridge."""
    names = list(dict.fromkeys(cost for report in comparison.reports for cost in report.cost))
    rows = (
        (name(report.bridge), *(f"{number(report.cost[cost])} ×" if cost in report.cost else NOTHING for cost in names))
        for report in comparison.reports
    )
    return table(("bridge", *names), rows)


def facts(comparison: Comparison) -> str:
    """What there is to know of the bridges: a list of what is the same of all, a table of the rest."""
    common = {key: values[0] for key, values in comparison.facts.items() if len(values) == 1}
    own = {key: values for key, values in comparison.facts.items() if len(values) > 1}
    told = "".join(tag("dt", escaped(key)) + tag("dd", escaped(value)) for key, value in common.items())
    rows = (
        (name(bridge), *map(escaped, values)) for bridge, *values in zip(comparison.names, *own.values(), strict=True)
    )
    return (tag("dl", told) if common else "") + (table(("bridge", *own), rows) if own else "")


def data(rows: Sequence[Row]) -> str:
    """The numbers of a chart, to be unfolded; columns that are empty or name one thing alone are left out."""
    varied = {column: {getattr(row, column) for row in rows} for column in COLUMNS}
    kept = [
        column
        for column, values in varied.items()
        if column == "value" or (len(values) > 1 if column in _TEXTS else values - {None})
    ]
    cells = ([_cell(getattr(row, column)) for column in kept] for row in rows)
    told = table([column.replace("_", " ") for column in kept], cells)
    return tag("details", tag("summary", f"data: {len(rows)} rows") + told)


def _cell(value: str | float | None) -> str:
    return escaped(value) if isinstance(value, str) else exact(value)
