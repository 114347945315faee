"""The study of connectors, in small: every way trained and measured, gone on with, summed up and drawn."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import connector_study
import first_bridge
import numpy as np
import pytest
import record

from mmbridge.evaluation.facts import f1


@pytest.mark.slow
def test_every_way_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(connector_study, "RESULTS", tmp_path)
    monkeypatch.setattr(connector_study, "workers", ThreadPoolExecutor)
    monkeypatch.setattr(connector_study, "SCENES", 5)
    monkeypatch.setattr(connector_study, "QUERIES", 8)
    monkeypatch.setattr(connector_study, "DATA", {"8 scenes": 8})
    runs = tmp_path / "runs"
    small = ["stages.align.steps=2", "stages.align.batch=4"]
    monkeypatch.setattr(connector_study, "WAYS", ("linear", "assignment", "qformer-represent"))
    monkeypatch.setattr(connector_study, "ADDS", (("assignment", "linear"),))
    command = ["connector_study.py", "--seeds", "0", "1", "--at-once", "1", "--out", str(runs), "--set", *small]
    monkeypatch.setattr("sys.argv", command)
    connector_study.main()
    figures = json.loads((tmp_path / "connector_study.json").read_text())["figures"]
    assert {figures[f"{way}, 8 scenes, seed 1"]["space"] for way in ("linear", "assignment")} != {
        figures["qformer-represent, 8 scenes, seed 1"]["space"]
    }
    compared = {way: figures[f"{way}, 8 scenes, seed 0"]["compared after"] for way in connector_study.WAYS}
    assert compared == {"linear": "align", "assignment": "align", "qformer-represent": "represent"}
    each = [figures[f"linear, 8 scenes, seed {seed}"]["scores"]["captions"]["fact_f1"] for seed in (0, 1)]
    assert figures["linear, 8 scenes, all seeds"]["captions"]["fact_f1"][0] == pytest.approx(
        (each[0][0] + each[1][0]) / 2
    )
    assert {*figures["what is added"]} == {"assignment above linear, 8 scenes: fact-F1"}
    assert "recall@1, image to text" in capsys.readouterr().out
    assert (tmp_path / "connector_study.svg").read_text().count("chance") > 0

    monkeypatch.setattr(connector_study, "train", lambda *_, **__: pytest.fail("trained a second time"))
    connector_study.main()


def test_a_difference_is_of_the_same_scenes(tmp_path: Path) -> None:
    """Against F1 by hand; a run differs from itself by nothing, in every resample."""
    facts = [["red circle"], ["blue square"]]
    said = {"both": "A red circle and a blue square.", "one": "A red circle.", "none": ""}
    for name, text in said.items():
        (tmp_path / name).mkdir()
        row = json.dumps({"prediction": text, "truth": {"facts": facts}})
        (tmp_path / name / "captions.jsonl").write_text(f"{row}\n{row}\n")
    hits = connector_study.counts(tmp_path / "one")
    assert np.all(hits[:, 1] == 1)
    value, low, high = connector_study.difference(tmp_path / "both", tmp_path / "one")
    expected = f1(connector_study.counts(tmp_path / "both").sum(0)) - f1(hits.sum(0))
    assert value == pytest.approx(expected)
    assert low == pytest.approx(high) == pytest.approx(value)
    assert connector_study.difference(tmp_path / "one", tmp_path / "one") == (0, 0, 0)
    assert first_bridge.over_seeds([{"": {"": (value, low, high)}}])[""][""] == (value, low, high)
