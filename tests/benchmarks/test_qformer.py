"""The benchmark of the Q-Former compares equal work on the tiny shape; no time is judged."""

import json
from pathlib import Path

import pytest
import qformer
import qformer_step
import record
import torch
from paired import AGAIN


def test_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    threads = str(torch.get_num_threads())
    monkeypatch.setattr("sys.argv", ["qformer.py", "--shape", "tiny", "--rounds", "1", "--threads", threads])
    qformer.main()
    figures = json.loads((tmp_path / "qformer.json").read_text())["figures"]
    found, whole = figures["tiny"], figures["tiny, contrast, matching and generation"]
    assert max(found["apart"].values()) <= 1e-5
    executed = found["executed FLOPs"]
    assert executed["mmbridge"] == executed["transformers"] > 0
    for times in (found["times"], found["times with dropout"]):
        assert set(times) == {"transformers", "mmbridge", "transformers" + AGAIN}
    assert "with dropout" in capsys.readouterr().out
    names = ("separate passes", "queries shared", "mmbridge")
    assert set(whole["times"]) == {*names, "separate passes" + AGAIN}
    assert max(figure for each in whole["apart"].values() for figure in each.values()) <= 1e-5
    first, second, last = (whole["executed FLOPs"][name] for name in names)
    assert first > second > last > 0


def test_a_step_with_other_losses_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that weighs a thousandth more stops the benchmark."""
    made = qformer.step(qformer.SHAPES["tiny"])
    contrast = made._contrast
    monkeypatch.setattr(made, "_contrast", lambda read: contrast(read) * 1.001)
    with pytest.raises(AssertionError, match="expected equal losses and gradients"):
        qformer_step.stepped(made, 1)


def test_other_work_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights in fewer heads stop the benchmark."""
    shape = qformer.SHAPES["tiny"]
    own = qformer.ours(shape, qformer.theirs(shape))
    own.blocks[0].attention.heads = 2  # type: ignore[union-attr]
    monkeypatch.setattr(qformer, "ours", lambda *_: own)
    with pytest.raises(AssertionError, match="expected equal outputs and gradients"):
        qformer.measured(shape, 1)
