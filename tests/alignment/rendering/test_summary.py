"""What a terminal shows."""

from math import nan

from rich.cells import cell_len

from mmbridge.alignment.rendering.summary import render, sparkline
from mmbridge.alignment.report import Scalar
from mmbridge.evaluation.bootstrap import Estimate
from tests.alignment.rendering.made_up import curve, report


def test_every_mean_and_scalar_has_its_line() -> None:
    told = render([report("first"), report("second", 0.0625)])
    lines = told.splitlines()
    assert lines[:4] == [
        "alignment of first, second",
        "  data: scenes & more",
        "  samples: 517",
        "  seconds: 12.5, 12.5625",
    ]
    place = lines.index("Alike (ima), image and text, block ↑")
    assert lines[place + 1] == "  first   0.391 [0.359, 0.453]  control 0.195  chance -0.250  ▁▃▄▇"
    assert lines[place + 2] == "  second  0.453 [0.422, 0.516]  control 0.227  chance -0.250  ▂▄▅█"
    place = lines.index("Gap (gap), image and text ↓")
    assert lines[place + 1] == "  first   0.867 [0.836, 0.930]  control 0.023 [-0.008, 0.086]  chance 0.008"
    assert lines[-1] == "time of second over that of plain forward passes: default set 1.19, mir 1.44"


def test_what_is_not_finite_is_a_dash_or_a_gap() -> None:
    broken = Scalar("gap", ("image",), Estimate(nan, nan, nan))
    told = render([report(curves=(curve([0.25, nan, 0.5]),), scalars=(broken,))])
    assert "  first  –  control –  chance -0.250  ▁ █" in told.splitlines()
    assert "  first  –  control –  chance –" in told.splitlines()


def test_names_keep_to_their_columns() -> None:
    names = ["桥" * 5, "a" * 90, "bell\x07\x1b[31m\nred"]
    told = render([report(name) for name in names])
    assert "\x1b" not in told
    assert "\x07" not in told
    assert "a" * 19 + "…" + "a" * 20 + "  0.391" in told
    lines = told.splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith("Alike"))
    starts = {cell_len(line[: line.index("control")]) for line in lines[place + 1 : place + 4]}
    assert len(starts) == 1


def test_sparklines_span_what_they_are_among() -> None:
    assert sparkline([0.0, 0.5, 1.0], [0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([0.0, 0.5], [0.0, 0.5, 3.5]) == "▁▂"
    assert sparkline([0.5, 0.5], [0.5, 0.5]) == "▁▁"
    assert sparkline([], []) == ""


def test_words_are_told() -> None:
    lines = render([report("one")]).splitlines()
    place = lines.index("likeliest words of one")
    assert lines[place + 1 : place + 3] == ["  depth 2, image: <red> 0.50, a 0.25", "  depth 2, text: blue 0.75"]
    assert "likeliest words" not in render([report("one", words=())])
