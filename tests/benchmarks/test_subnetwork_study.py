"""The study of sub-networks, in small: every mask tried and repaired, gone on with, summed up and drawn."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import record
import subnetwork_study as study

from mmbridge.llm.weight_mask import WeightMask


@pytest.mark.slow
def test_every_mask_is_tried_and_repaired_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (record, study):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(study, "workers", ThreadPoolExecutor)
    for name, value in {"SCENES": 4, "SAMPLES": 4, "SPARSITIES": (0.5,), "MASKS": ("subnetwork", "random")}.items():
        monkeypatch.setattr(study, name, value)
    monkeypatch.setattr(study, "REPAIR", (*study.REPAIR[1:], "stages.instruct.steps=3"))
    runs = tmp_path / "runs"
    command = ["subnetwork_study.py", "--seeds", "0", "1", "--at-once", "1", "--out", str(runs)]
    monkeypatch.setattr("sys.argv", [*command, "--set", "variant=world", "stages.instruct.batch=4"])
    study.main()
    figures = json.loads((tmp_path / "subnetwork_study.json").read_text())["figures"]
    of = figures["sparsity 0.5, seed 1"]
    mask = WeightMask.load(runs / "seed 1" / "sparsity 0.5" / "subnetwork" / "mask.safetensors")
    assert of["sparsity of the sub-network"] == mask.sparsity > 0.5
    assert of["iou of image and text"]["mean"] > of["iou of image and text"]["chance"]
    both = [figures[f"sparsity 0.5, seed {seed}"]["subnetwork"]["after repair"]["fact_f1"][0] for seed in (0, 1)]
    assert figures["sparsity 0.5, all seeds"]["after repair"]["subnetwork"][0] == pytest.approx(sum(both) / 2)
    for folder in ("sparsity 0.5/subnetwork", "sparsity 0.5/random", "whole LLM"):
        assert len((runs / "seed 0" / folder / "after repair" / "captions.jsonl").read_text().splitlines()) == 4
        logged = runs / "seed 0" / folder / "repaired" / "stages" / "instruct" / "metrics.jsonl"
        assert json.loads(logged.read_text().splitlines()[-1])["step"] == 3
    assert {*figures["differences"]} >= {
        "sub-network above random, sparsity 0.5, before",
        "whole LLM: as many steps add",
    }
    assert "sparsity 0.5, random" in capsys.readouterr().out
    assert "after repair" in (tmp_path / "subnetwork_study.svg").read_text()

    monkeypatch.setattr(study, "train", lambda *_, **__: pytest.fail("trained a second time"))
    study.main()
