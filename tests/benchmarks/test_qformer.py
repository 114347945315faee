"""The benchmark of the Q-Former compares equal work on the tiny shape; no time is judged."""

import json
from pathlib import Path

import pytest
import qformer
import record
import torch
from paired import AGAIN


def test_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    threads = str(torch.get_num_threads())
    monkeypatch.setattr("sys.argv", ["qformer.py", "--shape", "tiny", "--rounds", "1", "--threads", threads])
    qformer.main()
    found = json.loads((tmp_path / "qformer.json").read_text())["figures"]["tiny"]
    assert max(found["apart"].values()) <= 1e-5
    executed = found["executed FLOPs"]
    assert executed["mmbridge"] == executed["transformers"] > 0
    for times in (found["times"], found["times with dropout"]):
        assert set(times) == {"transformers", "mmbridge", "transformers" + AGAIN}
    assert "with dropout" in capsys.readouterr().out


def test_other_work_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights in fewer heads stop the benchmark."""
    shape = qformer.SHAPES["tiny"]
    own = qformer.ours(shape, qformer.theirs(shape))
    own.blocks[0].attention.heads = 2  # type: ignore[union-attr]
    monkeypatch.setattr(qformer, "ours", lambda *_: own)
    with pytest.raises(AssertionError, match="expected equal outputs and gradients"):
        qformer.measured(shape, 1)
