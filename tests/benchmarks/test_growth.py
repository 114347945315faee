"""How costs grow, in small: exponents of curves that are known, and every curve measured and plotted."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cost import allocated, cost, median, open_files
from curve import Curve, plot
from data_growth import LLAVA, PER_SHARD, mixed, opened, write_rows, write_shards

from mmbridge.data.formats import METADATA, open_source

ROOT = Path(__file__).parents[2]
SIZES = {
    "shards": [1, 2],
    "rows": [10, 20],
    "samples": [1000, 2000],
    "batch": [1, 2],
    "answer": [2, 4],
    "processes": [1, 2],
}


def test_exponents_are_slopes_of_the_upper_half(tmp_path: Path) -> None:
    sizes = [1, 10, 100, 1000, 10_000]
    costs = {"flat, s": [3.0] * 5, "linear, s": [5.0, 5.0, 1e2, 1e3, 1e4], "square, bytes": [1e6 * n**2 for n in sizes]}
    curve = Curve("things", sizes, {**costs, "files": [1.0] * 5})
    assert curve.exponents() == pytest.approx({"flat, s": 0.0, "linear, s": 1.0, "square, bytes": 2.0}, abs=1e-9)
    assert [line.endswith("MORE THAN LINEAR") for line in curve.lines()] == [False, False, True]
    assert Curve.of_figures(json.loads(json.dumps(curve.figures()))).figures() == curve.figures()
    plot({"known": curve, "again": curve}, tmp_path / "new" / "plot.svg")
    drawn = (tmp_path / "new" / "plot.svg").read_bytes()
    assert drawn.startswith(b"<?xml")
    plot({"known": curve, "again": curve}, tmp_path / "new" / "plot.svg")
    assert (tmp_path / "new" / "plot.svg").read_bytes() == drawn


def test_memory_is_what_was_held_at_the_peak() -> None:
    assert allocated(lambda: np.ones(10**6)) == pytest.approx(8e6, rel=0.01)
    assert allocated(lambda: [np.ones(10**5).sum() for _ in range(10)]) == pytest.approx(8e5, rel=0.05)
    kept, seconds, grown = cost(lambda: np.ones(10**7))
    assert len(kept) == 10**7
    assert seconds > 0
    assert 7e7 < grown < 1.2e8


def _numbered(start: float) -> dict[str, float]:
    return {"files": open_files(), "start": start}


def test_medians_of_runs() -> None:
    found = median(3, _numbered, 2.0)
    assert found["start"] == 2.0
    assert found["files"] > 2


def test_what_is_opened(tmp_path: Path) -> None:
    write_shards(tmp_path, 3)
    assert len(open_source(tmp_path)) == 3 * PER_SHARD
    assert opened(f"{tmp_path}/{{00000..00002}}.tar", str(tmp_path / "cache"))["open files"] == 0
    for form in (METADATA, LLAVA):
        source = open_source(write_rows(tmp_path / form, 7))
        assert len(source) == 7
        assert "number 6" in str(source[6])


def test_orders_of_any_length() -> None:
    found = mixed(3000, 3)
    assert set(found) == set(mixed(1_000_000, 1))
    assert all(value > 0 for value in found.values())


@pytest.mark.slow
def test_figures_and_plot(tmp_path: Path) -> None:
    """In a process of its own, as forking one that has trained is not safe."""
    code = (
        "import sys, growth, record, pathlib\n"
        f"growth.SIZES, record.RESULTS = {SIZES!r}, pathlib.Path({str(tmp_path)!r})\n"
        "sys.argv = ['growth.py', '--shape', 'tiny', '--repeats', '1']\n"
        "growth.main()"
    )
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    figures = json.loads((tmp_path / "growth.json").read_text())["figures"]
    assert len(figures) == 7
    assert [len(each["sizes"]) for each in figures.values()] == [2] * 7
    assert all(each["exponents"] for each in figures.values())
    assert figures["opening shards"]["open files"] == [0.0, 0.0]
    assert (tmp_path / "growth.svg").stat().st_size > 10_000
    assert "∝ batch^" in run.stdout
