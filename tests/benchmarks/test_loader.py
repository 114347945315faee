"""The loader beside a plain folder, in small: the same images in every format, and figures on disk."""

import json
from pathlib import Path

import loader
import pytest
import record
import torch
from photographs import write_photographs
from PIL import Image

from mmbridge.data.formats import open_source


def test_photographs_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    one, other = write_photographs(tmp_path, 12), write_photographs(tmp_path / "again", 12)
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    sizes = [side for path in one for side in Image.open(path).size]
    assert 336 <= min(sizes) < 400
    assert 580 < max(sizes) <= 640
    assert 40_000 < sum(path.stat().st_size for path in one) / 12 < 80_000


def test_every_format_holds_the_same(tmp_path: Path) -> None:
    formats = loader.write_formats(tmp_path, write_photographs(tmp_path, 3))
    told = {form: open_source(path) for form, path in formats.items()}
    for source in told.values():
        assert [sample.messages[-1].content for sample in source] == [(text,) for text in loader.captions(3)]
    assert {loader.read(source)() for source in told.values()} == {loader.read_by_hand(tmp_path)()}


@pytest.mark.slow
def test_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    threads = str(torch.get_num_threads())
    options = ["--shape", "tiny", "--images", "5", "--rounds", "1", "--threads", threads]
    monkeypatch.setattr("sys.argv", ["loader.py", *options])
    loader.main()
    found = json.loads((tmp_path / "loader.json").read_text())["figures"]["tiny"]
    forms = {loader.BY_HAND, "metadata.jsonl", "shards", "LLaVA JSON", "chat JSON lines", "saved Dataset", "Parquet"}
    assert set(found["samples per second"]) == set(found["microseconds to read a sample"]) == forms
    for kind, taken in found["samples per second of training"].items():
        rate, ratio = found["samples per second"]["shards"], found["loader over training"][kind]["shards"]
        assert ratio == pytest.approx(rate / taken)
    assert (
        found["TFLOP/s fed by a core"][loader.READY]["shards"] < found["TFLOP/s fed by a core"][loader.LIVE]["shards"]
    )
    assert "samples a second" in capsys.readouterr().out
