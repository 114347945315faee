"""Benchmark results on disk: kept as found, never mixed over commits."""

import json
from pathlib import Path

import pytest
import record
from record import Record


def test_a_stopped_benchmark_finds_its_figures_again(tmp_path: Path) -> None:
    path = tmp_path / "results" / "some.json"
    Record("some", path).keep("seed 0", {"f1": 0.5})
    again = Record("some", path)
    assert again.figures == {"seed 0": {"f1": 0.5}}
    again.keep("seed 1", {"f1": 0.7})
    written = json.loads(path.read_text())
    assert written["figures"] == {"seed 0": {"f1": 0.5}, "seed 1": {"f1": 0.7}}
    assert written.keys() >= {"commit", "command", "date", "hardware", "packages"}
    assert [file.name for file in path.parent.iterdir()] == ["some.json"]


def test_figures_of_another_commit_are_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "some.json"
    Record("some", path).keep("seed 0", 1)
    monkeypatch.setattr(record, "commit", lambda apart_from: "another")
    assert Record("some", path).figures == {}
