"""Places on charts are those of the numbers."""

import xml.etree.ElementTree as ElementTree
from math import inf, nan
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from mmbridge.alignment.rendering.drawing import Bars, Cloud, Line, bar_chart, heat_map, line_chart, mark, scatter
from mmbridge.alignment.rendering.palette import MARKS
from mmbridge.alignment.rendering.scale import Scale
from mmbridge.evaluation.bootstrap import Estimate
from tests.alignment.rendering.made_up import around

VALUES = [0.125, 0.3125, -0.40625, 0.71875, 0.5]
NAMES: Any = {"across": "depth", "up": "cosine", "label": "a chart"}


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def all_of(svg: str, name: str, kind: str) -> list[ElementTree.Element]:
    return [each for each in parsed(svg).iter(name) if each.get("class") == kind]


def places(element: ElementTree.Element) -> np.ndarray:
    """(N, 2)."""
    return np.array([[float(number) for number in pair.split(",")] for pair in element.attrib["points"].split()])


def axis(svg: str, which: str) -> np.ndarray:
    """What the axis' labels say: the coefficients of place as a function of value."""
    ticks = [each for each in parsed(svg).iter("text") if (each.get("class") or "").endswith(f"tick-{which}")]
    assert len(ticks) > 2
    at = [float(each.attrib[which]) - (4 if which == "y" else 0) for each in ticks]
    fit = np.polyfit([float(each.text or "") for each in ticks], at, 1)
    np.testing.assert_allclose(np.polyval(fit, [float(each.text or "") for each in ticks]), at, atol=0.02)
    return np.asarray(fit)


def line(values: list[float], **more: object) -> Line:
    told = {"name": "a", "colour": "red", "mark": "o", "depths": range(len(values)), "values": [*map(around, values)]}
    return Line(**(told | more))  # type: ignore[arg-type]


def test_lines_and_bands_lie_where_the_axes_say() -> None:
    control = [around(value / 2) for value in VALUES]
    svg = line_chart([line(VALUES, control=control)], [[(0, -0.5), (4, -0.25)]], **NAMES)
    across, up = axis(svg, "x"), axis(svg, "y")

    def drawn_at(points: np.ndarray, depths: ArrayLike, values: ArrayLike) -> None:
        np.testing.assert_allclose(points[:, 0], np.polyval(across, np.asarray(depths)), atol=0.03)
        np.testing.assert_allclose(points[:, 1], np.polyval(up, np.asarray(values)), atol=0.03)

    depths = np.arange(5)
    (drawn,), (dashed,), (dotted,) = (all_of(svg, "polyline", kind) for kind in ("line", "control", "chance"))
    drawn_at(places(drawn), depths, VALUES)
    drawn_at(places(dashed), depths, np.array(VALUES) / 2)
    drawn_at(places(dotted), [0, 4], [-0.5, -0.25])
    assert "stroke-dasharray" not in drawn.attrib
    assert dashed.attrib["stroke-dasharray"] != dotted.attrib["stroke-dasharray"]
    (band,) = all_of(svg, "polygon", "band")
    edge = places(band)
    drawn_at(edge[:5], depths, [value + 0.0625 for value in VALUES])
    drawn_at(edge[5:], depths[::-1], [value - 0.03125 for value in VALUES[::-1]])
    assert np.all(edge[:5, 1] < places(drawn)[:, 1])
    assert np.all(edge[5:][::-1, 1] > places(drawn)[:, 1])
    marks = all_of(svg, "circle", "mark")
    np.testing.assert_allclose([float(each.attrib["cy"]) for each in marks], np.polyval(up, VALUES), atol=0.03)
    assert [each.findtext("title") for each in marks][2] == "a, depth 2: -0.406 [-0.438, -0.344]"


@pytest.mark.parametrize("gap", [nan, inf, -inf])
def test_what_is_not_finite_is_a_gap(gap: float) -> None:
    svg = line_chart([line([0.1, 0.2, gap, 0.4, 0.5, gap, 0.7])], [], **NAMES)
    assert [len(places(each)) for each in all_of(svg, "polyline", "line")] == [2, 2, 1]
    assert [len(places(each)) for each in all_of(svg, "polygon", "band")] == [4, 4, 2]
    assert len(all_of(svg, "circle", "mark")) == 5
    assert "nan" not in svg
    assert "inf" not in svg


def test_a_value_without_an_interval_has_no_band() -> None:
    svg = line_chart([Line("a", "red", "o", [0, 1], [Estimate(each, nan, nan) for each in (0.1, 0.2)])], [], **NAMES)
    assert all_of(svg, "polygon", "band") == []
    assert len(places(all_of(svg, "polyline", "line")[0])) == 2


@pytest.mark.parametrize("values", [[], [nan, nan]])
def test_a_chart_of_nothing_says_so(values: list[float]) -> None:
    svg = line_chart([line(values)], [], **NAMES)
    assert "no values" in svg
    assert all_of(svg, "polyline", "line") == []
    assert "no values" not in line_chart([line([0.5])], [], **NAMES)


def test_what_is_named_is_escaped() -> None:
    rude = '<script>alert("1")</script> & \x00 \ud800'
    svg = line_chart([line([0.1], name=rude)], [], across=rude, up=rude, label=rude)
    assert "<script" not in svg
    assert parsed(svg).attrib["aria-label"] == '<script>alert("1")</script> & � �'
    assert parsed(svg).attrib["role"] == "img"


def test_bars_are_as_high_as_they_say_between_their_edges() -> None:
    edges, heights = [0.0, 1.5, 4.0, 6.0], [0.25, 0.75, nan]
    svg = bar_chart(edges, [Bars("image", "red", heights)], across="length", up="share", label="bars")
    across, up = axis(svg, "x"), axis(svg, "y")
    bars = [
        {key: float(each.attrib[key]) for key in ("x", "y", "width", "height")} for each in parsed(svg).iter("rect")
    ]
    assert len(bars) == 2
    for bar, low, high, height in zip(bars, edges, edges[1:], heights, strict=False):
        np.testing.assert_allclose([bar["x"], bar["x"] + bar["width"]], np.polyval(across, [low, high]), atol=0.03)
        np.testing.assert_allclose([bar["y"], bar["y"] + bar["height"]], np.polyval(up, [height, 0]), atol=0.03)


def test_scattered_points_keep_their_angles() -> None:
    points = [(-1.25, 0.5), (0.75, 2.125), (3.0, -2.0), (nan, 0.0)]
    svg = scatter([Cloud("text", "red", "o", points)], label="points")
    across, up = axis(svg, "x"), axis(svg, "y")
    drawn = np.array([[float(each.attrib[key]) for key in ("cx", "cy")] for each in all_of(svg, "circle", "mark")])
    wanted = np.stack(
        [np.polyval(across, [each[0] for each in points[:3]]), np.polyval(up, [each[1] for each in points[:3]])]
    )
    np.testing.assert_allclose(drawn, wanted.T, atol=0.05)
    assert across[0] == pytest.approx(-up[0], rel=1e-3)


def test_cells_are_as_dark_as_their_number_and_hold_it() -> None:
    svg = heat_map(["r", "s"], ["a", "b"], [[0.8, -0.4], [0.0, nan]], 0.8, ("red", "blue"), label="a map")
    cells = list(parsed(svg).iter("rect"))
    assert [float(each.attrib["fill-opacity"]) for each in cells] == [0.75, 0.375, 0.0, 0.0]
    assert [each.attrib["style"] for each in cells] == ["color:red", "color:blue", "color:red", "color:red"]
    assert [each.findtext("title") for each in cells] == ["r, a: 0.800", "r, b: -0.400", "s, a: 0.000", "s, b: –"]
    told = [each.text for each in parsed(svg).iter("text") if each.get("class") == "words middle"]
    assert told == ["0.80", "-0.40", "0.00", "–"]


@pytest.mark.parametrize("shape", MARKS)
def test_marks_are_around_their_place(shape: str) -> None:
    element = parsed(mark(shape, 10, 20, 3, "here"))
    assert element.findtext("title") == "here"
    middle = places(element).mean(axis=0) if shape != "o" else [float(element.attrib[key]) for key in ("cx", "cy")]
    np.testing.assert_allclose(middle, [10, 20], atol=1.0)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.7, 11.2), (1e-7, 3e-7), (-2e9, 5e8), (0.41, 0.43)])
def test_rounded_scales_enclose_with_few_ticks(low: float, high: float) -> None:
    scale = Scale.over([high, nan, low], 200, 20, rounded=True)
    ticks = scale.ticks()
    assert ticks[0] <= low + 1e-9 * abs(low)
    assert ticks[-1] >= high - 1e-9 * abs(high)
    assert 3 <= len(ticks) <= 8
    assert [scale(ticks[0]), scale(ticks[-1])] == pytest.approx([200, 20])
    np.testing.assert_allclose(np.diff([scale(tick) for tick in ticks]), (20 - 200) / (len(ticks) - 1))


@pytest.mark.parametrize("value", [0.0, -4.0, 5e-324, 1e300, 0.1])
def test_a_single_value_stands_in_the_middle(value: float) -> None:
    assert Scale.over([value], 0, 100)(value) == pytest.approx(50)
