"""Plots as files: what they are called, and that they show what the page shows."""

import errno
import os
import sys
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from PIL import Image

from mmbridge.alignment.rendering.palette import colours
from mmbridge.alignment.rendering.plots import write_plots
from mmbridge.errors import UserError
from tests.alignment.rendering.made_up import curve, report

NAMES = [
    "curve-ima-image-text-block.png",
    "curve-ima-image-text-attention.png",
    "matrix-iou-image-text.png",
    "histogram-norm.png",
    "view-PCA.png",
]

NO_PANELS: Any = {"matrices": (), "histograms": (), "views": ()}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, in their order."""
    figures: list[Figure] = []
    save = Figure.savefig

    def kept(self: Figure, *args: Any, **more: Any) -> None:
        figures.append(self)
        save(self, *args, **more)

    monkeypatch.setattr(Figure, "savefig", kept)
    return figures


def test_files_are_named_after_what_they_show(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    assert write_plots([report("first"), report("second", 0.0625)], tmp_path) == [tmp_path / name for name in NAMES]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)
    for name in NAMES:
        with Image.open(tmp_path / name) as image:
            assert image.format == "PNG"
            assert min(image.size) > 300
    assert dict(matplotlib.rcParams) == before


def test_curves_are_those_of_the_reports(tmp_path: Path, drawn: list[Figure]) -> None:
    reports = [replace(each, **NO_PANELS) for each in (report("first"), report("second", 0.0625))]
    write_plots(reports, tmp_path)
    (axis,) = drawn[0].axes
    solid = [line for line in axis.lines if line.get_linestyle() == "-"]
    dashed = [line for line in axis.lines if line.get_linestyle() == "--" and np.size(line.get_xdata())]
    bands = [each for each in axis.collections if isinstance(each, PolyCollection)]
    for number, each in enumerate(reports):
        wanted = each.curves[0]
        np.testing.assert_array_equal(solid[number].get_xdata(), wanted.depths)
        np.testing.assert_array_equal(solid[number].get_ydata(), [value.value for value in wanted.values])
        assert solid[number].get_color() == colours(2)[number].light
        np.testing.assert_array_equal(dashed[number].get_ydata(), [value.value for value in wanted.control])
        edge = np.asarray(bands[number].get_paths()[0].vertices)[:, 1]
        assert edge.min() == min(value.low for value in wanted.values)
        assert edge.max() == max(value.high for value in wanted.values)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("depth (0: input of the LLM)", "cosine, −1 to 1")
    told = [text.get_text().strip() for text in drawn[0].legends[0].get_texts()]
    assert told == ["first, mean 0.391 [0.359, 0.453]", "second, mean 0.453 [0.422, 0.516]", "control", "chance"]


def test_panels_are_those_of_the_reports(tmp_path: Path, drawn: list[Figure]) -> None:
    write_plots([report("first", curves=()), report("second", 0.0625, curves=())], tmp_path)
    matrix, histogram, view = drawn
    assert [axis.get_title() for axis in matrix.axes] == ["first", "second"]
    assert [text.get_text() for text in matrix.axes[1].texts] == ["0.81", "-0.38", "0.00", "–"]
    assert [axis.get_title() for axis in histogram.axes] == ["first, depth 2", "second, depth 2"]
    image, text = histogram.axes[0].patches
    assert [*image.get_data().values] == [0.25, 0.75]  # type: ignore[attr-defined]
    assert [*text.get_data().edges] == [0.0, 1.5, 4.0]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(view.axes[0].collections[0].get_offsets(), [(-1.25, 0.5), (0.75, 2.125)])


def test_names_may_hold_anything(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    names = ["$\\frac{", "_hidden", "桥 🌉", "../../up/x", "x" * 300]
    curves = (curve([0.5, nan], of=("a/b",)), curve([0.5], of=("a b",)), curve([], of=("none",)))
    plain, *others = [report(name, curves=curves) for name in names]
    found = write_plots([plain, *(replace(each, **NO_PANELS) for each in others)], tmp_path / "deep" / "plots")
    assert [path.name for path in found][:3] == [
        "curve-ima-a_b-block.png",
        "curve-ima-a_b-block-2.png",
        "curve-ima-none-block.png",
    ]
    assert all(path.parent == tmp_path / "deep" / "plots" and path.is_file() for path in found)
    assert [str(each.message) for each in recwarn] == []


def test_without_matplotlib_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"plots: .* matplotlib .* found none; pip install 'mmbridge\[plot\]'"):
        write_plots([report()], tmp_path / "plots")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_leaves_no_plots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, count = Figure.savefig, [0]

    def full(self: Figure, *args: Any, **more: Any) -> None:
        count[0] += 1
        if count[0] == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(self, *args, **more)

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(OSError, match="No space left"):
        write_plots([report()], tmp_path)
    assert list(tmp_path.iterdir()) == []
