"""The sub-network of a tiny bridge: its masks, its scores, and the command that repairs it."""

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmbridge.bridge import Bridge
from mmbridge.llm.weight_mask import WeightMask, linear_layers, matrix
from mmbridge.recipe import Recipe
from mmbridge.recipes import subnetwork
from tests.tiny_bridge import tiny_data, tiny_recipe

FOUND = ("image", "text", "both")


def run(monkeypatch: pytest.MonkeyPatch, *given: object) -> None:
    monkeypatch.setattr(sys, "argv", ["subnetwork", *map(str, given)])
    subnetwork.main()


def test_masks_scores_and_repair(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_recipe(parts).train(out=tmp_path / "run")
    out = tmp_path / "found"
    options = ["--sparsity", "0.3", "--samples", "4", "--limit", "4", "--out", out, "--device", "cpu"]
    options += ["--calibration", tiny_data(tmp_path / "other", 4)]
    run(monkeypatch, tmp_path / "run", parts / "data", *options)
    said = capsys.readouterr().out
    masks = {file.stem: WeightMask.load(file) for file in out.glob("*.safetensors")}
    assert masks.keys() == {*FOUND, "subnetwork", "magnitude", "random"}
    shared = masks["subnetwork"]
    for name in shared.bits:
        expected = np.logical_and.reduce([masks[group].kept(name).numpy() for group in FOUND])
        np.testing.assert_array_equal(shared.kept(name).numpy(), expected)
    assert all(masks[name].sparsity == shared.sparsity > masks["image"].sparsity for name in ("magnitude", "random"))
    written = json.loads((out / "scores.json").read_text())
    assert list(written["masks"]) == ["none", *FOUND, "subnetwork", "magnitude", "random"]
    assert written["masks"]["none"]["sparsity"] == 0
    assert written["masks"]["subnetwork"]["sparsity"] == shared.sparsity
    assert set(written["masks"]["random"]) >= {"exact", "cider"}
    assert "subnetwork" in said

    words = shlex.split(said.splitlines()[-1].removeprefix("to repair: "))
    assert words[:2] == ["mmbridge", "train"]
    overrides = [word for word in words[3:] if "=" in word]
    repaired = Recipe.load(words[2], *overrides).train(out=words[words.index("--out") + 1])
    for name, layer in linear_layers(repaired.llm.layers).items():
        assert not matrix(layer)[~shared.kept(name)].any()
    before = Bridge.from_pretrained(tmp_path / "run", device="cpu").own_tensors()
    assert not all(torch.equal(each, before[name]) for name, each in repaired.own_tensors().items())


def test_samples_that_cannot_be_used_are_left_out(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And data without captions are refused before anything is looked for or written."""
    Bridge(tiny_recipe(parts)).save_pretrained(tmp_path / "bridge")
    data = tiny_data(tmp_path / "data", 4)
    (data / "001.png").write_bytes(b"no picture")
    options = ["--samples", "4", "--out", tmp_path / "found", "--device", "cpu"]
    options += ["--calibration", tiny_data(tmp_path / "other", 4)]
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, tmp_path / "bridge", data, *options)
    assert caught.value.code == 1
    said = capsys.readouterr()
    told, count = said.err.splitlines()
    assert "001.png" in told
    assert count == "1 samples were left out"
    assert (tmp_path / "found" / "scores.json").exists()

    rows = [json.loads(row) for row in (data / "metadata.jsonl").read_text().splitlines()]
    bare = [json.dumps({"file_name": row["file_name"]}) for row in rows]
    (data / "metadata.jsonl").write_text("\n".join(bare))
    monkeypatch.setattr(subnetwork, "activated", lambda *_, **__: pytest.fail("masks were looked for"))
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, tmp_path / "bridge", data, "--out", tmp_path / "none", *options[-4:])
    assert caught.value.code == 2
    assert "caption" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (["--sparsity", "1"], "sparsity: expected a share of weights to drop, from 0 to below 1, found 1"),
        (["--samples", "0"], "--samples: expected at least 1, found 0"),
        ([], "nowhere: no such folder; name a bridge folder"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: list[str],
    line: str,
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, tmp_path / "nowhere", tmp_path, "--calibration", "other", "--out", tmp_path / "out", *change)
    assert caught.value.code == 2
    assert line in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
