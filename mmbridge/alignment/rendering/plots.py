"""The charts of the page as PNG files; needs the extra ``plot``."""

import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, count, cycle
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmbridge.alignment.rendering.comparison import Comparison, Owned, most, shares
from mmbridge.alignment.rendering.markup import short
from mmbridge.alignment.rendering.numerals import number, spanned
from mmbridge.alignment.rendering.palette import MARKS, colours
from mmbridge.alignment.report import AlignmentReport, Curve, Histogram, Matrix, View
from mmbridge.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

_ACROSS = 3
"""Panels in a row."""
_NAME = 36


def write_plots(reports: Sequence[AlignmentReport], folder: Path) -> list[Path]:
    """A file for each chart, named after its score, groups and site: all of them or none.

    Curves of all bridges share a chart; heat maps, histograms and views have a panel for each bridge and depth.

    Raises:
        UserError: matplotlib is not installed, or as ``Comparison``.
        OSError: they cannot be written.
    """
    try:
        import matplotlib
    except ImportError:
        problem = "expected the package matplotlib to be installed, found none"
        raise UserError("plots", problem, "pip install 'mmbridge[plot]'") from None
    comparison = Comparison(reports)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as parts, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        with matplotlib.rc_context({"font.size": 8, "text.parse_math": False}):
            names: list[str] = []
            for stem, figure in _figures(comparison):
                names.append(_free(stem, names))
                figure.savefig(Path(parts) / names[-1], dpi=150)
        for name in names:
            os.replace(Path(parts) / name, folder / name)
    return [folder / name for name in names]


def _figures(comparison: Comparison) -> Iterator[tuple[str, "Figure"]]:
    """Each with the stem of its file's name."""
    palette = dict(zip(comparison.groups, zip(_lights(len(comparison.groups)), cycle(MARKS)), strict=False))
    for (score, of, site), curves in comparison.curves.items():
        yield _stem("curve", score, *of, site), _curves(comparison, curves)
    for (score, of), matrices in comparison.matrices.items():
        title = f"{comparison.definitions[score].title}: {' and '.join(of)}"
        yield _stem("matrix", score, *of), _panels(title, matrices, partial(_matrix, most=most(matrices)))
    for score, histograms in comparison.histograms.items():
        definition = comparison.definitions[score]
        draw = partial(_histogram, unit=definition.unit, palette=palette)
        yield _stem("histogram", score), _panels(definition.title, histograms, draw)
    for method, views in comparison.views.items():
        yield _stem("view", method), _panels(f"States by {method}", views, partial(_view, palette=palette))


def _curves(comparison: Comparison, curves: Sequence[Owned[Curve]]) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    curve = curves[0].figure
    definition = comparison.definitions[curve.score]
    lights = _lights(len(comparison.reports))
    figure = Figure(figsize=(7, 4 + 0.12 * len(curves)), layout="constrained")
    axis = figure.add_subplot()
    for each in curves:
        told, depths, colour = each.figure, each.figure.depths, lights[each.number]
        label = f" {short(each.bridge, _NAME)}, mean {spanned(told.mean)}"
        shape = MARKS[each.number % len(MARKS)]
        axis.plot(depths, [value.value for value in told.values], color=colour, marker=shape, ms=3, label=label)
        low, high = ([getattr(value, end) for value in told.values] for end in ("low", "high"))
        axis.fill_between(depths, low, high, color=colour, alpha=0.16, linewidth=0)
        if told.control:
            axis.plot(depths, [value.value for value in told.control], color=colour, linestyle="--", linewidth=1)
        if told.chance:
            axis.plot(depths, told.chance, color="grey", linestyle=":")
    styles = [("control", "--", any(each.figure.control for each in curves))]
    styles.append(("chance", ":", any(each.figure.chance for each in curves)))
    for label, dashes, shown in styles:
        if shown:
            axis.plot([], [], color="grey", linestyle=dashes, label=label)
    title = f"{definition.title}: {' and '.join(curve.of)} ({curve.site}; {definition.better} is better aligned)"
    axis.set(title=short(title, 100), xlabel="depth (0: input of the LLM)", ylabel=short(definition.unit, 60))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _panels(title: str, owned: Sequence[Owned[Any]], draw: Callable[["Axes", Any], None]) -> "Figure":
    """One for each bridge and depth; groups have one legend."""
    from matplotlib.figure import Figure

    across = min(_ACROSS, len(owned))
    down = -(-len(owned) // across)
    wide, high = max(_size(each.figure) for each in owned)
    figure = Figure(figsize=(wide * across, high * down + 0.6), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).flat
    for axis, each in zip(axes, owned, strict=False):
        depth = f", depth {each.figure.depth}" if hasattr(each.figure, "depth") else ""
        axis.set_title(short(each.bridge, _NAME - len(depth)) + depth)
        draw(axis, each.figure)
    for axis in [*axes][len(owned) :]:
        axis.set_axis_off()
    figure.suptitle(short(title, 100))
    handles = {
        label: handle for axis in figure.axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return figure


def _size(figure: Matrix | Histogram | View) -> tuple[float, float]:
    """Of a panel, in inches: cells hold their numbers."""
    if isinstance(figure, Matrix):
        return max(3.6, 1.4 + 0.45 * len(figure.columns)), max(3.0, 1.2 + 0.26 * len(figure.rows))
    return 3.6, 3.0


def _matrix(axis: "Axes", matrix: Matrix, most: float) -> None:
    for row, values in enumerate(matrix.values):
        for column, value in enumerate(values):
            axis.text(column, row, number(value, 2), ha="center", va="center", fontsize=6)
    cells = [[value if isfinite(value) else nan for value in row] for row in matrix.values]
    if matrix.rows and matrix.columns:
        axis.imshow(cells, cmap=_blank_at_zero(), vmin=-most, vmax=most, alpha=0.75, aspect="auto")
    axis.set_xticks(range(len(matrix.columns)), [short(each, 20) for each in matrix.columns], rotation=40, ha="right")
    axis.set_yticks(range(len(matrix.rows)), [short(each, 20) for each in matrix.rows])
    if matrix.chance is not None:
        axis.set_xlabel(f"chance {number(matrix.chance)}")


def _histogram(axis: "Axes", histogram: Histogram, unit: str, palette: Mapping[str, tuple[str, str]]) -> None:
    for group, counts in histogram.counts.items():
        axis.stairs(shares(counts), histogram.edges, fill=True, alpha=0.45, color=palette[group][0], label=f" {group}")
    axis.set(xlabel=short(unit, 60), ylabel="share of a group's states")


def _view(axis: "Axes", view: View, palette: Mapping[str, tuple[str, str]]) -> None:
    for group, points in view.points.items():
        colour, shape = palette[group]
        across, up = [point[0] for point in points], [point[1] for point in points]
        axis.scatter(across, up, s=6, color=colour, marker=shape, alpha=0.65, label=f" {group}")
    axis.set(xlabel="first direction", ylabel="second direction")
    axis.set_aspect("equal", adjustable="datalim")


def _blank_at_zero() -> "Colormap":
    """From the second colour through white to the first, as the page tints its cells."""
    from matplotlib.colors import LinearSegmentedColormap

    above, below = _lights(2)
    return LinearSegmentedColormap.from_list("blank_at_zero", [below, "white", above])


def _lights(needed: int) -> list[str]:
    return [colour.light for colour in colours(needed)]


def _stem(*parts: str) -> str:
    return "-".join(re.sub(r"[^\w.]+", "_", part) for part in parts if part)


def _free(stem: str, taken: Sequence[str]) -> str:
    """The file's name; names that differ only in what a file's may not hold are counted."""
    numbered = chain([stem], (f"{stem}-{number}" for number in count(2)))
    return next(f"{each}.png" for each in numbered if f"{each}.png" not in taken)
