"""The page's charts, each with its legend and its numbers."""

from collections.abc import Iterable, Sequence
from itertools import chain

from mmbridge.alignment.rendering import long_form
from mmbridge.alignment.rendering.comparison import Comparison, Owned, most, shares
from mmbridge.alignment.rendering.drawing import Bars, Cloud, Line, bar_chart, heat_map, line_chart, mark, scatter
from mmbridge.alignment.rendering.markup import escaped, tag
from mmbridge.alignment.rendering.numerals import number, spanned
from mmbridge.alignment.rendering.page_tables import better, data, name
from mmbridge.alignment.rendering.palette import MARKS
from mmbridge.alignment.report import Curve, Definition, Histogram, Matrix, View


def curves(comparison: Comparison) -> Iterable[str]:
    """A chart for each score, groups and site, with all bridges in it."""
    for (score, of, site), owned in comparison.curves.items():
        definition = comparison.definitions[score]
        label = f"{definition.title} of {' and '.join(of)} over depth, {site}; means: " + "; ".join(
            f"{each.bridge} {spanned(each.figure.mean)}" for each in owned
        )
        chance = dict.fromkeys(
            tuple(zip(each.figure.depths, each.figure.chance, strict=True)) for each in owned if each.figure.chance
        )
        lines = [_line(each) for each in owned]
        drawn = line_chart(lines, list(chance), across="depth (0: input of the LLM)", up=definition.unit, label=label)
        numbers = chain.from_iterable(long_form.curve_rows(each.bridge, each.figure) for each in owned)
        yield _figure(
            _heading(definition, of, site), drawn + _curve_legend(owned, bool(chance), definition), data([*numbers])
        )


def matrices(comparison: Comparison) -> Iterable[str]:
    """A heat map for each score, groups and bridge; those of one score and groups have one scale of colours."""
    for (score, _), owned in comparison.matrices.items():
        for each in owned:
            yield _matrix(each, comparison.definitions[score], most(owned))


def _matrix(owned: Owned[Matrix], definition: Definition, full: float) -> str:
    matrix = owned.figure
    label = f"{definition.title} of {' and '.join(matrix.of)}, {owned.bridge}"
    tints = ("var(--tint-0)", "var(--tint-1)")
    drawn = heat_map(matrix.rows, matrix.columns, matrix.values, full, tints, label=label)
    chance = f"chance {number(matrix.chance)}" if matrix.chance is not None else ""
    heading = _heading(definition, matrix.of, chance) + tag("p", name(owned.bridge), class_="small")
    numbers = data([*long_form.matrix_rows(owned.bridge, matrix)])
    return _figure(heading, tag("div", drawn, class_="wide"), numbers)


def histograms(comparison: Comparison) -> Iterable[str]:
    """A chart for each score, bridge and depth, with all groups in it."""
    for score, owned in comparison.histograms.items():
        for each in owned:
            yield _histogram(each, comparison.definitions[score], comparison.groups)


def _histogram(owned: Owned[Histogram], definition: Definition, groups: Sequence[str]) -> str:
    histogram = owned.figure
    bars = [
        Bars(group, f"var(--group-{groups.index(group)})", shares(counts)) for group, counts in histogram.counts.items()
    ]
    label = f"{definition.title} at depth {histogram.depth}, {owned.bridge}: how {', '.join(histogram.counts)} spread"
    up = "share of a group's states"
    drawn = bar_chart(histogram.edges, bars, across=definition.unit, up=up, label=label)
    heading = _heading(definition, (), f"depth {histogram.depth}") + tag("p", name(owned.bridge), class_="small")
    numbers = data([*long_form.histogram_rows(owned.bridge, histogram)])
    return _figure(heading, drawn + _group_legend(histogram.counts, groups), numbers)


def views(comparison: Comparison) -> Iterable[str]:
    """A chart for each method, bridge and depth, with all groups in it."""
    for method, owned in comparison.views.items():
        for each in owned:
            yield _view(each, method, comparison.groups)


def _view(owned: Owned[View], method: str, groups: Sequence[str]) -> str:
    view = owned.figure
    clouds = [
        Cloud(group, f"var(--group-{place})", MARKS[place % len(MARKS)], points)
        for group, points in view.points.items()
        for place in [groups.index(group)]
    ]
    drawn = scatter(clouds, label=f"States at depth {view.depth} by {method}, {owned.bridge}")
    heading = tag("h3", escaped(f"States at depth {view.depth}, by {method}"))
    heading += tag("p", name(owned.bridge), class_="small")
    numbers = data([*long_form.view_rows(owned.bridge, view)])
    return _figure(heading, drawn + _group_legend(view.points, groups), numbers)


def _line(owned: Owned[Curve]) -> Line:
    curve, number = owned.figure, owned.number
    shape = MARKS[number % len(MARKS)]
    return Line(owned.bridge, f"var(--bridge-{number})", shape, curve.depths, curve.values, curve.control)


def _heading(definition: Definition, of: Sequence[str], where: str) -> str:
    title = definition.title + (f": {' and '.join(of)}" if of else "")
    small = tag("p", escaped(where), class_="small") if where else ""
    return tag("h3", f"{escaped(title)} {better(definition)}") + small


def _figure(heading: str, drawn: str, numbers: str) -> str:
    return tag("figure", tag("figcaption", heading) + drawn + numbers)


def _curve_legend(owned: Sequence[Owned[Curve]], chance: bool, definition: Definition) -> str:
    entries = []
    for each in owned:
        shape = mark(MARKS[each.number % len(MARKS)], 13, 6, 3)
        told = name(each.bridge) + tag("span", f" mean {spanned(each.figure.mean)}")
        entries.append(entry(f"var(--bridge-{each.number})", _stroke("line") + shape, told))
    if any(each.figure.control for each in owned):
        told = escaped(f"control: {definition.control}" if definition.control else "control")
        entries.append(entry("inherit", _stroke("control", "6 4"), tag("span", told)))
    if chance:
        told = escaped(f"chance: {definition.chance}" if definition.chance else "chance")
        entries.append(entry("inherit", _stroke("chance", "1.5 4"), tag("span", told)))
    return tag("ul", "".join(entries), class_="legend")


def _group_legend(shown: Iterable[str], groups: Sequence[str]) -> str:
    places = [(group, groups.index(group)) for group in shown]
    entries = [
        entry(f"var(--group-{place})", mark(MARKS[place % len(MARKS)], 13, 6, 4), tag("span", escaped(group)))
        for group, place in places
    ]
    return tag("ul", "".join(entries), class_="legend")


def entry(colour: str, drawn: str, told: str) -> str:
    """Of a legend: what is drawn in that colour, and what it stands for."""
    sample = tag("svg", drawn, viewBox="0 0 26 12", aria_hidden="true")
    return tag("li", f"{sample} {told}", style=f"color:{colour}")


def _stroke(kind: str, dashes: str = "") -> str:
    return tag("line", x1=0, x2=26, y1=6, y2=6, class_=kind, stroke_dasharray=dashes)
