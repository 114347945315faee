"""Rows hold every number in full."""

import csv
from dataclasses import replace
from math import inf, nan
from pathlib import Path

import pytest

from mmbridge.alignment.rendering.long_form import COLUMNS, write_csv
from mmbridge.alignment.report import AlignmentReport, Scalar
from mmbridge.errors import UserError
from mmbridge.evaluation.bootstrap import Estimate
from tests.alignment.rendering.made_up import DEFINITIONS, report


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def numbers(row: dict[str, str], *names: str) -> tuple[float | None, ...]:
    return tuple(float(row[name]) if row[name] else None for name in names)


def estimate(row: dict[str, str], before: str = "") -> tuple[float | None, ...]:
    return numbers(row, *((before, f"{before}_low", f"{before}_high") if before else ("value", "low", "high")))


def test_what_is_read_back_is_what_was_written(tmp_path: Path) -> None:
    third = 1 / 3
    reports = [report("first", third), report('se,"cond\n桥', -third)]
    write_csv(reports, tmp_path / "a.csv")
    found = read(tmp_path / "a.csv")
    assert tuple(found[0]) == COLUMNS
    for each in reports:
        mine = [row for row in found if row["bridge"] == each.bridge]
        assert len(mine) == 1 + 2 * (4 + 1) + 4 + 4 + 3 + 6
        words = [
            (row["of"], row["row"], *numbers(row, "value")) for row in mine if row["row"] in ("<red>", " a", "blue")
        ]
        assert words == [("image", "<red>", 0.5), ("image", " a", 0.25), ("text", "blue", 0.75)]
        for curve in each.curves:
            rows = [row for row in mine if (row["score"], row["site"]) == ("ima", curve.site)]
            assert [row["depth"] for row in rows] == ["0", "1", "2", "3", "mean"]
            assert {row["of"] for row in rows} == {"image text"}
            for row, value, control in zip(rows, curve.values, curve.control, strict=False):
                assert estimate(row) == (value.value, value.low, value.high)
                assert estimate(row, "control") == (control.value, control.low, control.high)
                assert numbers(row, "chance") == (-0.25,)
            assert estimate(rows[-1]) == (curve.mean.value, curve.mean.low, curve.mean.high)
            middle = sum(control.value for control in curve.control) / 4
            assert numbers(rows[-1], "control")[0] == pytest.approx(middle)
            assert numbers(rows[-1], "control_low", "control_high") == (None, None)
        (gap,) = (row for row in mine if row["score"] == "gap")
        value = each.scalars[0].value
        assert estimate(gap) == (value.value, value.low, value.high)
        assert numbers(gap, "chance") == (0.0078125,)
        cells = {(row["row"], row["column"]): numbers(row, "value") for row in mine if row["score"] == "iou"}
        ((first, second), (third_cell, _)) = each.matrices[0].values
        assert cells == {
            ("block 1", "q"): (first,),
            ("block 1", "k"): (second,),
            ("block 2", "q"): (third_cell,),
            ("block 2", "k"): (None,),
        }
        bins = [
            (row["of"], row["row"], *numbers(row, "value"))
            for row in mine
            if (row["score"], row["depth"]) == ("norm", "2")
        ]
        assert bins[:2] == [("image", "0 to 1.5", 3.0), ("image", "1.5 to 4", 9.0)]
        points = [
            (row["of"], row["row"], row["column"], *numbers(row, "value")) for row in mine if row["score"] == "PCA"
        ]
        assert points[2:5] == [("image", "1", "x", 0.75), ("image", "1", "y", 2.125), ("text", "0", "x", 3.0625)]


def test_what_is_not_finite_is_empty(tmp_path: Path) -> None:
    broken = AlignmentReport("x", {}, DEFINITIONS, scalars=(Scalar("gap", (), Estimate(nan, -inf, inf)),))
    write_csv([broken], tmp_path / "a.csv")
    (row,) = read(tmp_path / "a.csv")
    assert {name: cell for name, cell in row.items() if cell} == {"bridge": "x", "score": "gap"}


def test_a_name_without_bytes_is_written_all_the_same(tmp_path: Path) -> None:
    write_csv([replace(report("a\udcffb"), scalars=())], tmp_path / "a.csv")
    assert read(tmp_path / "a.csv")[0]["bridge"] == "a?b"


def test_bridges_that_cannot_be_compared_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="different names"):
        write_csv([report(), report()], tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []
