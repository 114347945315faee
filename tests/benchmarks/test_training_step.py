"""The step measured against transformers: the same gradient, less work, and figures on disk; no time is judged."""

import json
from dataclasses import replace
from pathlib import Path

import paired
import pytest
import record
import torch
import training_step
from random_llava import SHAPES, write
from training_step import SETTINGS

SHAPE = SHAPES["tiny"]


def test_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    threads = str(torch.get_num_threads())
    monkeypatch.setattr("sys.argv", ["training_step.py", "--shape", "tiny", "--rounds", "1", "--threads", threads])
    training_step.main()
    figures = json.loads((tmp_path / "training_step.json").read_text())["figures"]
    assert set(figures) == {f"tiny, {name}" for name in SETTINGS}
    for name, setting in SETTINGS.items():
        found, (baseline, other) = figures[f"tiny, {name}"], setting.peers
        assert set(found["gradient apart from"]) == {baseline, other}
        assert max(found["gradient apart from"].values()) <= 1e-5
        executed = found["executed FLOPs"]
        assert executed[baseline] > executed[other] > executed["mmbridge"] >= found["needed FLOPs"] > 0
        assert set(found["times"]) == {baseline, other, "mmbridge", baseline + paired.AGAIN}
        assert all(each["seconds"] > 0 for each in found["times"].values())
        for variant, rate in found["samples per second"].items():
            assert rate * found["times"][variant]["seconds"] == pytest.approx(len(setting.texts(SHAPE)))
    assert figures["tiny, cached"]["needed FLOPs"] < figures["tiny, live"]["needed FLOPs"]
    mix, fixed = figures["tiny, instruct"], figures["tiny, fixed length"]
    assert mix["needed FLOPs"] == fixed["needed FLOPs"]
    assert mix["executed FLOPs"]["mmbridge"] == fixed["executed FLOPs"]["mmbridge"]
    assert mix["executed FLOPs"]["transformers"] < fixed["executed FLOPs"]["transformers, fixed length"]
    assert "five captions" in capsys.readouterr().out


def test_other_work_is_not_timed(tmp_path: Path) -> None:
    """A gradient that differs, here by one supervised token, stops the benchmark."""
    folder, setting = write(SHAPE, tmp_path / "llava"), SETTINGS["live"]
    texts = setting.texts(SHAPE)
    bridge, _, step = training_step.ours(folder, SHAPE, texts, setting)
    changed = [replace(text, answer=(4, *text.answer[1:])) for text in texts]
    model, others = training_step.theirs(folder, SHAPE, changed, setting)
    step()
    others["transformers"]()
    with pytest.raises(AssertionError, match=r"expected equal gradients, found them .* apart"):
        training_step.difference(bridge, model)
