"""The study of the first bridge, in small: every stage and seed measured, gone on with, and summed up."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import first_bridge
import pytest
import record
import torch


def test_every_seed_and_stage_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(first_bridge, "workers", ThreadPoolExecutor)
    monkeypatch.setattr(first_bridge, "SCENES", {"caption": 4, "vqa": 2, "pope": 3})
    out = ["--at-once", "1", "--out", str(tmp_path / "runs")]
    command = ["first_bridge.py", "--seeds", "0", "1", *out, "--set", "variant=world"]
    monkeypatch.setattr("sys.argv", command)
    first_bridge.main()
    figures = json.loads((tmp_path / "first_bridge.json").read_text())["figures"]
    first = [figures[f"align, seed {seed}"]["scores"]["vqa, test"]["accuracy"] for seed in (0, 1)]
    value, low, high = figures["align, all seeds"]["vqa, test"]["accuracy"]
    assert value == pytest.approx((first[0][0] + first[1][0]) / 2)
    assert (low, high) == (min(score[1] for score in first), max(score[2] for score in first))
    assert figures["instruct, all seeds"].keys() >= {"pope, test", "caption, combinations", "vqa, shuffled images"}
    assert 0 < figures["chance"]["vqa"]["constant"][0] < 1
    assert "after instruct, seeds [0, 1]" in capsys.readouterr().out

    monkeypatch.setattr(first_bridge, "train", lambda *_, **__: pytest.fail("trained a second time"))
    first_bridge.main()


def test_seeds_train_side_by_side_in_processes_of_their_own() -> None:
    with first_bridge.workers(2) as pool:
        assert pool.submit(torch.get_num_threads).result() == max(1, (os.cpu_count() or 1) // 2)
        assert pool.submit(os.getpid).result() != os.getpid()
