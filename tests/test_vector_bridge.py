"""A bridge over vectors, end to end: trained on files, saved, loaded, asked from the command line."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from mmbridge.bridge import Bridge
from mmbridge.cli.app import run
from mmbridge.errors import BridgeError, MediaError, RecipeError
from mmbridge.recipe import Recipe
from tests.tiny_bridge import COLOURS, tiny_recipe, tiny_stage

WIDTH = 6
ITEMS = np.random.default_rng(5).normal(size=(8, WIDTH)).astype(np.float32)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight items in a table, each told by a colour."""
    folder = tmp_path / "items"
    folder.mkdir()
    np.save(folder / "items.npy", ITEMS)
    save_file({f"item-{n}": each for n, each in enumerate(ITEMS)}, folder / "items.safetensors")
    rows = [{"file_name": f"items.npy#{n}", "text": f"a {colour} thing"} for n, colour in enumerate(COLOURS)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def recipe(parts: Path, data: Path, **changes: Any) -> Recipe:
    source = {"kind": "files", "path": str(data), "task": "caption", "prompts": ["Describe it."]}
    encoder = {"kind": "vectors", "path": str(data / "items.npy")}
    connector = {"medium": "vector", "encoders": ["item"], "projector": {"kind": "mlp", "depth": 2}}
    stage = tiny_stage(data={"mix": [source]}, steps=2)
    return tiny_recipe(parts, stage, **({"encoders": {"item": encoder}, "connectors": {"item": connector}} | changes))


def test_trained_saved_loaded_and_asked(
    parts: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = recipe(parts, data).train(out=tmp_path / "run")
    again = Bridge.from_pretrained(tmp_path / "run", device="cpu")
    asked = [each.ask(ITEMS[3], "which?", max_new_tokens=5) for each in (bridge, again)]
    assert asked[0].text == asked[1].text
    assert asked[0].perceptual_tokens == 1
    ways = (data / "items.npy#3", str(data / "items.safetensors#item-3"), ITEMS[3:4])
    assert {again.ask(each, "which?", max_new_tokens=5).text for each in ways} == {asked[0].text}
    assert len(again.caption([ITEMS[0], ITEMS[1]], max_new_tokens=2)) == 2
    turn = {"role": "user", "content": [{"type": "vector", "vector": ITEMS[3]}, {"type": "text", "text": "which?"}]}
    assert again.generate([turn], max_new_tokens=5).text == asked[0].text
    capsys.readouterr()

    monkeypatch.chdir(data)
    common = ["--json", "--max-new-tokens", "5", "--device", "cpu"]
    assert run(["ask", str(tmp_path / "run"), "items.npy#3", "-q", "which?", *common]) == 0
    line = json.loads(capsys.readouterr().out)
    assert (line["text"], line["media"], line["perceptual_tokens"]) == (asked[0].text, ["items.npy#3"], 1)
    assert run(["ask", str(tmp_path / "run"), "items.npy#3", "items.npy#4", "-q", "which?", *common]) == 0
    assert json.loads(capsys.readouterr().out)["perceptual_tokens"] == 2
    assert run(["caption", str(tmp_path / "run"), "items.npy#3", "items.npy#8", *common]) == 1
    told = capsys.readouterr()
    assert "items.npy#8: expected a row from 0 to 7, found '8'" in told.err
    assert [("error" in json.loads(each)) for each in told.out.splitlines()] in ([False, True], [True, False])
    assert run(["info", str(tmp_path / "run"), "--json"]) == 0
    rows = {part["part"]: part for part in json.loads(capsys.readouterr().out)["parts"]}
    assert (rows["encoder item"]["kind"], rows["encoder item"]["width"], rows["encoder item"]["tokens"]) == (
        "vectors", WIDTH, 1,
    )  # fmt: skip
    assert len(rows["encoder item"]["sha256"]) == 64
    assert rows["encoder item"]["frozen"] == 0


def test_another_table_is_refused(parts: Path, data: Path, tmp_path: Path) -> None:
    Bridge(recipe(parts, data)).save_pretrained(tmp_path / "bridge")
    Bridge.from_pretrained(tmp_path / "bridge", device="cpu")
    np.save(data / "items.npy", ITEMS[::-1])
    os.utime(data / "items.npy", ns=(1, 1))
    with pytest.raises(BridgeError, match=r"encoders\.item: .*items\.npy has changed: expected contents"):
        Bridge.from_pretrained(tmp_path / "bridge", device="cpu")


def test_a_width_alone_names_no_file(parts: Path, data: Path, tmp_path: Path) -> None:
    plain = recipe(parts, data, encoders={"item": {"kind": "vectors", "width": WIDTH, "normalise": True}})
    Bridge(plain).save_pretrained(tmp_path / "bridge")
    again = Bridge.from_pretrained(tmp_path / "bridge", device="cpu")
    assert again.recipe.encoders == plain.encoders
    assert set(again.sources) == {"llm"}
    long, short = ([each.clone() for (each,) in again.perceive(batch_of(again, k * ITEMS[0])).tokens] for k in (3, 1))
    torch.testing.assert_close(long, short)


def batch_of(bridge: Bridge, vector: Any) -> Any:
    from mmbridge.data.sample import Medium, Sample, conversation

    said = conversation(("user", (Medium("vector", vector), "?")), ("assistant", ("yes",)))
    return bridge.collate()([Sample("one", said)])


def test_several_vectors_a_medium(parts: Path, data: Path) -> None:
    """Each is a token of its own; another number of them is refused by name."""
    made = Bridge(recipe(parts, data, encoders={"item": {"kind": "vectors", "width": WIDTH, "count": 2}}))
    assert made.ask(ITEMS[:2], "?", max_new_tokens=1).perceptual_tokens == 2
    with pytest.raises(MediaError, match="media in memory: expected 2 of width 6, found 1 of width 6"):
        made.ask(ITEMS[0], "?")
    with pytest.raises(MediaError, match="media in memory: expected 2 of width 6, found 2 of width 5"):
        made.ask(ITEMS[:2, :5], "?")


def test_vectors_beside_images(parts: Path, data: Path) -> None:
    """Two kinds in one prompt, each through its own connector; tiles are asked for of images alone."""
    connectors = {
        "image": {"encoders": ["image"], "projector": {"kind": "linear"}},
        "item": {"medium": "vector", "encoders": ["item"], "projector": {"kind": "linear"}},
    }
    encoders = {
        "image": {"kind": "transformers", "path": str(parts / "clip"), "aspect": "tiles"},
        "item": {"kind": "vectors", "width": WIDTH},
    }
    made = Bridge(recipe(parts, data, encoders=encoders, connectors=connectors))
    image = parts / "data" / "000.png"
    tokens = made.ask([image, ITEMS[0]], "?", max_new_tokens=1).perceptual_tokens
    assert tokens == made.ask(image, "?", max_new_tokens=1).perceptual_tokens + 1


@pytest.mark.parametrize(
    "use",
    [
        lambda recipe, folder: run(["data", "cache", str(recipe), "--out", str(folder / "f")]),
        lambda recipe, folder: run(["train", str(recipe), f"features={{path: {folder}}}", "--out", str(folder / "o")]),
    ],
)
def test_there_are_no_features_to_keep(
    use: Callable[[Path, Path], int], parts: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(recipe(parts, data).dump())
    assert use(file, tmp_path) == 2
    assert "expected encoders that compute features, found kind vectors" in capsys.readouterr().err


def test_a_llava_folder_reads_no_vectors(parts: Path, data: Path, tmp_path: Path) -> None:
    from mmbridge.llava.export import export_llava

    with pytest.raises(RecipeError, match="LLaVA reads images, found vector"):
        export_llava(Bridge(recipe(parts, data)), tmp_path / "llava")
