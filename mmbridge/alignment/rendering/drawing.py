"""Charts as SVG in text: every function is pure, and colours are whatever CSS takes for one.

What belongs to the drawing itself (axes, words) is left to the classes ``axis``, ``grid``, ``words`` and ``chance``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite
from typing import TypeVar

from mmbridge.alignment.rendering.markup import escaped, short, tag
from mmbridge.alignment.rendering.numerals import number, spanned
from mmbridge.alignment.rendering.palette import MARKS
from mmbridge.alignment.rendering.scale import Scale
from mmbridge.evaluation.bootstrap import Estimate

WIDTH, HEIGHT = 440, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 428, 12, 244
_LETTER = 6.4
"""About the width of one, in the size of labels."""
_CELL, _ROW = 46, 22

Point = tuple[float, float]
Numbers = TypeVar("Numbers", bound=tuple[float, ...])


@dataclass(frozen=True, slots=True)
class Line:
    """A score at ``depths`` (L,), with its interval as a band, and its ``control`` (L,) or (0,), dashed."""

    name: str
    colour: str
    mark: str
    depths: Sequence[float]
    values: Sequence[Estimate]
    control: Sequence[Estimate] = ()


@dataclass(frozen=True, slots=True)
class Cloud:
    """Points (N, 2) of one group."""

    name: str
    colour: str
    mark: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Bars:
    """Heights (K,) of one group, one for each bin."""

    name: str
    colour: str
    heights: Sequence[float]


def line_chart(
    lines: Sequence[Line],
    chance: Sequence[Sequence[Point]],
    *,
    across: str,
    up: str,
    label: str,
    whole: bool = True,
) -> str:
    """All lines on one pair of axes; ``chance`` are lines of (depth, value), dotted. What is not finite is a gap.

    Args:
        across: what the horizontal axis shows, depths or something else; tooltips leave out what is in brackets.
        up: what the vertical one shows, with its unit.
        label: what is drawn, for who cannot see it.
        whole: the horizontal axis counts something.
    """
    heights = [
        each for line in lines for one in (*line.values, *line.control) for each in (one.value, one.low, one.high)
    ]
    heights += [value for guess in chance for _, value in guess]
    depths = [depth for line in lines for depth in line.depths]
    x, y = Scale.over(depths, _LEFT + 8, _RIGHT - 8), Scale.over(heights, _BOTTOM, _TOP, rounded=True)
    drawn = [_axes(x, y, across, up, whole=whole)]
    if not any(map(isfinite, heights)):
        drawn.append(tag("text", "no values", x=(_LEFT + _RIGHT) / 2, y=(_TOP + _BOTTOM) / 2, class_="words middle"))
    for guess in chance:
        drawn += [_polyline(run, x, y, class_="chance", stroke_dasharray="1.5 4") for run in _runs(guess)]
    for line in lines:
        drawn.append(tag("g", _line(line, x, y, across.partition(" (")[0]), style=f"color:{line.colour}"))
    return _svg((WIDTH, HEIGHT), label, drawn)


def _line(line: Line, x: Scale, y: Scale, across: str) -> str:
    drawn = []
    band = [(depth, each.low, each.high) for depth, each in zip(line.depths, line.values, strict=True)]
    for run in _runs(band):
        edge = [(depth, high) for depth, _, high in run] + [(depth, low) for depth, low, _ in reversed(run)]
        drawn.append(tag("polygon", points=_places(edge, x, y), class_="band", fill="currentColor"))
    if line.control:
        control = list(zip(line.depths, [each.value for each in line.control], strict=True))
        drawn += [_polyline(run, x, y, class_="control", stroke_dasharray="6 4") for run in _runs(control)]
    values = list(zip(line.depths, [each.value for each in line.values], strict=True))
    drawn += [_polyline(run, x, y, class_="line") for run in _runs(values)]
    for depth, value in zip(line.depths, line.values, strict=True):
        if isfinite(value.value):
            told = f"{line.name}, {across} {depth:g}: {spanned(value)}"
            drawn.append(mark(line.mark, x(depth), y(value.value), 2.6, told))
    return "".join(drawn)


def bar_chart(edges: Sequence[float], groups: Sequence[Bars], *, across: str, up: str, label: str) -> str:
    """Bars of all groups over bins between ``edges`` (K + 1,), one group shining through the other."""
    heights = [height for bars in groups for height in bars.heights]
    x, y = Scale.over(edges, _LEFT, _RIGHT), Scale.over([0.0, *heights], _BOTTOM, _TOP, rounded=True)
    drawn = [_axes(x, y, across, up)]
    for bars in groups:
        inside = []
        for low, high, height in zip(edges, edges[1:], bars.heights, strict=False):
            if isfinite(height) and isfinite(low) and isfinite(high):
                title = tag("title", escaped(f"{bars.name}, {number(low)} to {number(high)}: {number(height)}"))
                place = {"x": _at(x(low)), "y": _at(y(height)), "width": _at(x(high) - x(low))}
                inside.append(tag("rect", title, **place, height=_at(y(0.0) - y(height)), class_="bar"))
        drawn.append(tag("g", "".join(inside), style=f"color:{bars.colour}"))
    return _svg((WIDTH, HEIGHT), label, drawn)


def scatter(clouds: Sequence[Cloud], *, label: str) -> str:
    """Points of all groups; a unit is as long upwards as across."""
    finite = {cloud.name: [point for point in cloud.points if all(map(isfinite, point))] for cloud in clouds}
    points = [point for kept in finite.values() for point in kept]
    x, y = _square([point[0] for point in points], [point[1] for point in points])
    drawn = [_axes(x, y, "first direction", "second direction")]
    for cloud in clouds:
        marks = "".join(mark(cloud.mark, x(across), y(up), 2.2) for across, up in finite[cloud.name])
        title = tag("title", escaped(cloud.name))
        drawn.append(tag("g", title + marks, style=f"color:{cloud.colour}", class_="cloud"))
    return _svg((WIDTH, HEIGHT), label, drawn)


def _square(across: Sequence[float], up: Sequence[float]) -> tuple[Scale, Scale]:
    """Scales of one length for a unit, with what is drawn in the middle."""
    x, y = Scale.over(across, _LEFT + 8, _RIGHT - 8), Scale.over(up, _BOTTOM - 8, _TOP + 8)
    unit = max((x.high - x.low) / (x.end - x.start), (y.high - y.low) / (y.start - y.end))
    return tuple(  # type: ignore[return-value]
        Scale(middle - reach, middle + reach, each.start, each.end, max(x.step, y.step))
        for each in (x, y)
        for middle, reach in [((each.low + each.high) / 2, unit * abs(each.end - each.start) / 2)]
    )


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    full: float,
    colours: tuple[str, str],
    *,
    label: str,
) -> str:
    """Numbers (R, C) on cells that are blank at 0 and darkest at ``full`` or −``full``, of the two colours."""
    left = 12 + _LETTER * max((min(len(row), 20) for row in rows), default=0)
    top = 12 + _LETTER * max((min(len(column), 20) for column in columns), default=0) * 0.75
    drawn = []
    for place, column in enumerate(columns):
        x = left + _CELL * (place + 0.5)
        turned = f"rotate(-40 {_at(x)} {_at(top - 6)})"
        drawn.append(_words(column, x, top - 6, 20, transform=turned))
    for height, (row, cells) in enumerate(zip(rows, values, strict=True)):
        y = top + _ROW * height
        drawn.append(_words(row, left - 6, y + 15, 20, "end"))
        for place, (column, value) in enumerate(zip(columns, cells, strict=True)):
            title = tag("title", escaped(f"{row}, {column}: {number(value)}"))
            depth = abs(value) / full * 0.75 if isfinite(value) else 0.0
            colour = f"color:{colours[value < 0]}"
            place_of = {"x": _at(left + _CELL * place), "y": _at(y), "width": _CELL, "height": _ROW}
            drawn.append(tag("rect", title, **place_of, class_="cell", style=colour, fill_opacity=f"{depth:.3f}"))
            drawn.append(
                tag("text", number(value, 2), x=_at(left + _CELL * (place + 0.5)), y=_at(y + 15), class_="words middle")
            )
    size = (left + _CELL * len(columns) + 60, top + _ROW * len(rows) + 4)
    return _svg(size, label, drawn, width=f"{size[0]:.0f}")


def mark(shape: str, x: float, y: float, reach: float, title: str = "") -> str:
    """One of ``palette.MARKS``, ``reach`` from its middle to its edge."""
    inside = tag("title", escaped(title)) if title else ""
    assert shape in MARKS, shape
    if shape == "o":
        return tag("circle", inside, cx=_at(x), cy=_at(y), r=reach, class_="mark")
    corners: Mapping[str, Sequence[Point]] = {
        "s": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        "D": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
        "^": ((0, -1.2), (1.1, 0.9), (-1.1, 0.9)),
    }
    points = " ".join(f"{_at(x + reach * right)},{_at(y + reach * down)}" for right, down in corners[shape])
    return tag("polygon", inside, points=points, class_="mark")


def _axes(x: Scale, y: Scale, across: str, up: str, *, whole: bool = False) -> str:
    drawn = []
    for tick in y.ticks():
        drawn.append(tag("line", x1=_LEFT, x2=_RIGHT, y1=_at(y(tick)), y2=_at(y(tick)), class_="grid"))
        drawn.append(tag("text", f"{tick:g}", x=_LEFT - 6, y=_at(y(tick) + 4), class_="words end tick-y"))
    for tick in x.ticks(whole=whole):
        drawn.append(tag("line", x1=_at(x(tick)), x2=_at(x(tick)), y1=_BOTTOM, y2=_BOTTOM + 4, class_="axis"))
        drawn.append(tag("text", f"{tick:g}", x=_at(x(tick)), y=_BOTTOM + 17, class_="words middle tick-x"))
    drawn.append(tag("line", x1=_LEFT, x2=_RIGHT, y1=_BOTTOM, y2=_BOTTOM, class_="axis"))
    drawn.append(_words(across, (_LEFT + _RIGHT) / 2, HEIGHT - 8, 60, "middle"))
    middle = (_TOP + _BOTTOM) / 2
    drawn.append(_words(up, 13, middle, 36, "middle", transform=f"rotate(-90 13 {_at(middle)})"))
    return "".join(drawn)


def _words(text: str, x: float, y: float, most: int, anchor: str = "", **attributes: object) -> str:
    """Cut where they are too long, and then whole in the tooltip."""
    shown = short(text, most)
    title = "" if shown == text else tag("title", escaped(text))
    return tag("text", title + escaped(shown), x=_at(x), y=_at(y), class_=f"words {anchor}".strip(), **attributes)


def _runs(points: Iterable[Numbers]) -> Iterable[list[Numbers]]:
    """Stretches of neighbours that are finite."""
    return (list(run) for finite, run in groupby(points, lambda point: all(map(isfinite, point))) if finite)


def _polyline(points: Sequence[Point], x: Scale, y: Scale, **attributes: object) -> str:
    return tag("polyline", points=_places(points, x, y), fill="none", **attributes)


def _places(points: Iterable[Point], x: Scale, y: Scale) -> str:
    return " ".join(f"{_at(x(across))},{_at(y(up))}" for across, up in points)


def _svg(size: Point, label: str, drawn: Iterable[str], **attributes: object) -> str:
    box = f"0 0 {size[0]:.0f} {size[1]:.0f}"
    return tag("svg", "".join(drawn), viewBox=box, role="img", aria_label=label, **attributes)


def _at(place: float) -> str:
    return f"{place:.2f}"
