"""The way of an image measured beside transformers: the same pixels, and figures on disk; no time is judged."""

import json
from pathlib import Path

import image_input
import paired
import pytest
import record
import torch

from mmbridge.encoders.preprocessing import Pixels


@pytest.fixture(autouse=True)
def _threads_as_before() -> None:
    """The benchmark takes one thread; the tests have one already."""
    torch.set_num_threads(1)


def test_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["image_input.py", "--images", "3", "--rounds", "1"])
    image_input.main()
    found = json.loads((tmp_path / "image_input.json").read_text())["figures"]
    assert list(found) == [f"quality {quality}" for quality in image_input.QUALITIES]
    for figures in found.values():
        assert 30_000 < figures["bytes"] < 150_000
        for baseline, times in figures["times"].items():
            assert {baseline, baseline + paired.AGAIN, image_input.QUEUED, image_input.NORMALISED} < set(times)
            assert all(each["seconds"] > 0 for each in times.values())
    assert image_input.NORMALISED in capsys.readouterr().out


def test_other_pixels_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here pixels that are black throughout."""
    monkeypatch.setattr(Pixels, "normalise", lambda _, images: torch.zeros(images.shape))
    with pytest.raises(AssertionError, match="expected transformers' pixels, found others"):
        image_input.measured(52, 1, 1)
