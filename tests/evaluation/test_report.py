"""The report's JSON, its table and its saved rows."""

import json
from dataclasses import replace
from pathlib import Path

from mmbridge.evaluation.bootstrap import Estimate
from mmbridge.evaluation.report import Failure, Report, Row

REPORT = Report(
    task="vqa",
    metrics={
        "accuracy": Estimate(0.9, 0.8, 1.0),
        "accuracy/shape": Estimate(0.5, 0.4, 0.6),
        "cider": Estimate(1, 0, 2),
    },
    rows=(Row("a", "red", {"answers": ["red"]}, "colour", 16), Row("b", "été", {"answers": ["x"]}, None, 8)),
    failed=(Failure("c", "c.jpg: expected an image, found nothing"),),
    seconds=1.5,
    flops=1000,
    flops_note="counted",
    ceilings={"llm.text_vqa": 0.98, "llm.count": 0.93, "clip.shape": 0.97, "clip.colour": 0.99},
)


def test_json_has_what_the_contract_names_and_plain_numbers_as_metrics() -> None:
    found = json.loads(REPORT.to_json())
    assert {"task", "n", "metrics", "flops", "seconds"} <= set(found)
    assert (found["task"], found["n"], found["flops"], found["seconds"]) == ("vqa", 2, 1000, 1.5)
    assert found["metrics"]["accuracy"] == 0.9
    assert found["intervals"]["accuracy"] == [0.8, 1.0]
    assert found["failed"] == [{"id": "c", "error": "c.jpg: expected an image, found nothing"}]
    assert found["perceptual_tokens"] == 12


def test_rows_are_saved_as_they_were_said(tmp_path: Path) -> None:
    REPORT.write_rows(tmp_path / "rows.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[0] == {"id": "a", "prediction": "red", "truth": {"answers": ["red"]}, "kind": "colour"}
    assert lines[1]["prediction"] == "été"


def test_the_table_has_both_ceilings_beside_every_bounded_score() -> None:
    lines = {line.split()[0]: line for line in REPORT.render().splitlines()[1:]}
    assert "0.900 [0.800, 1.000]" in lines["accuracy"]
    assert "≤ llm 0.980" in lines["accuracy"]
    assert "≤ llm 0.980" in lines["accuracy/shape"]
    assert "≤ clip 0.970" in lines["accuracy"]  # its lowest
    assert "≤ clip 0.970" in lines["accuracy/shape"]  # its own
    assert "≤" not in lines["cider"]
    assert "c.jpg: expected an image" in lines["failed:"]


def test_the_header_explains_the_ceilings_that_follow_and_no_others() -> None:
    captions = replace(REPORT, task="caption", metrics={"fact_f1": Estimate(0.9, 0.8, 1.0)})
    assert REPORT.render().splitlines()[0].endswith("(≤ llm: its ceiling)  (≤ clip: its ceiling)")
    assert captions.render().splitlines()[0].endswith(" s  (≤ clip: its ceiling)")
