"""Bridges on disk: what comes back, and what is refused."""

import json
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmbridge import bridge_folder
from mmbridge.bridge import Bridge
from mmbridge.bridge_folder import save
from mmbridge.errors import BridgeError, UserError
from tests.tiny import tiny_llava, tiny_llm
from tests.tiny_bridge import tiny_recipe

LORA = {"lora": {"rank": 2, "alpha": 2}}


def made(parts: Path, llm: dict[str, Any] | None = None, **changes: Any) -> Bridge:
    """A bridge whose own tensors are all moved off their starting values."""
    bridge = Bridge(tiny_recipe(parts, llm={"path": str(parts / "llm")} | (llm or {}), **changes))
    for tensor in bridge.own_tensors().values():
        tensor.add_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)), alpha=0.1)
    return bridge


def picture() -> Image.Image:
    return Image.linear_gradient("L").convert("RGB")


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return set(first) == set(second) and all(torch.equal(each, second[name]) for name, each in first.items())


def loaded(folder: Path | str) -> Bridge:
    return Bridge.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize("llm", [{}, LORA], ids=["connectors", "lora"])
def test_what_is_saved_comes_back(parts: Path, tmp_path: Path, llm: dict[str, Any]) -> None:
    bridge = made(parts, llm)
    bridge.stage, bridge.metrics = "align", {"loss": 0.5}
    bridge.save_pretrained(tmp_path / "b")
    again = loaded(tmp_path / "b")
    assert same(bridge.own_tensors(), again.own_tensors())
    assert (again.recipe, again.stage, again.metrics) == (bridge.recipe, "align", {"loss": 0.5})
    assert again.caption(picture(), max_new_tokens=8).text == bridge.caption(picture(), max_new_tokens=8).text
    assert not again.training
    names = set(load_file(tmp_path / "b" / "bridge.safetensors"))
    assert names == set(bridge.own_tensors())
    assert any("lora_A" in name for name in names) == bool(llm)


def test_the_folder_holds_what_it_says(parts: Path, tmp_path: Path) -> None:
    made(parts).save_pretrained(tmp_path / "b")
    names = {each.name for each in (tmp_path / "b").iterdir()}
    assert names == {"recipe.yaml", "bridge.safetensors", "config.json", "metrics.json", "README.md"}
    assert [each.name for each in tmp_path.iterdir()] == ["b"]
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert (config["format"], config["version"], config["width"]) == ("mmbridge bridge", 1, 32)
    assert set(config["frozen"]) == {"llm", "encoders.image"}
    card = huggingface_hub.ModelCard.load(tmp_path / "b" / "README.md")
    assert card.data.library_name == "mmbridge"
    assert config["frozen"]["llm"]["sha256"][:16] in card.text


def test_unfrozen_parameters_are_kept_and_frozen_ones_are_not(parts: Path, tmp_path: Path) -> None:
    bridge = made(parts)
    name = "llm.model.model.layers.1.mlp.up_proj.weight"
    bridge.unfrozen.add(name)
    bridge.get_parameter(name).data.mul_(2)
    save(bridge, tmp_path / "b")
    again = loaded(tmp_path / "b")
    assert again.unfrozen == {name}
    assert torch.equal(again.get_parameter(name), bridge.get_parameter(name))
    kept = {key for key in load_file(tmp_path / "b" / "bridge.safetensors") if not key.startswith("connectors.")}
    assert kept == {name}


def test_buffers_of_connectors_are_kept(parts: Path, tmp_path: Path) -> None:
    bridge, again = made(parts), made(parts)
    for each, value in ((bridge, 3.0), (again, 0.0)):
        each.connectors["image"].register_buffer("mean", torch.tensor([value]))
    save(bridge, tmp_path / "b")
    bridge_folder.fill(again, tmp_path / "b")
    assert again.connectors["image"].get_buffer("mean").item() == 3.0


def test_a_large_bridge_is_in_several_files(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = partial(huggingface_hub.save_torch_state_dict, max_shard_size=4096)
    monkeypatch.setattr(bridge_folder, "save_torch_state_dict", small)
    bridge = made(parts)
    save(bridge, tmp_path / "b")
    assert len(list((tmp_path / "b").glob("bridge-*.safetensors"))) > 1
    assert same(bridge.own_tensors(), loaded(tmp_path / "b").own_tensors())
    monkeypatch.undo()
    save(bridge, tmp_path / "b")  # no old shard may be left over
    assert [each.name for each in (tmp_path / "b").glob("*safetensors*")] == ["bridge.safetensors"]


def edited(folder: Path, change: Any) -> None:
    file = folder / "bridge.safetensors"
    tensors = dict(load_file(file))
    change(tensors)
    save_file(tensors, file)


WEIGHT = "connectors.image.projector.{}"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda t: t.pop(min(t)), r"expected the tensors of its recipe, found missing connectors\.image"),
        (lambda t: t.update(extra=torch.zeros(1)), "found unexpected extra$"),
        (lambda t: t.update({min(t): torch.zeros(2, 3)}), r": expected shape \(.*\), found \(2, 3\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(parts: Path, tmp_path: Path, change: Any, line: str) -> None:
    save(made(parts), tmp_path / "b")
    edited(tmp_path / "b", change)
    with pytest.raises(BridgeError, match=line) as caught:
        loaded(tmp_path / "b")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["bridge.safetensors", "recipe.yaml", "metrics.json"])
def test_an_incomplete_folder_says_what_is_missing(parts: Path, tmp_path: Path, name: str) -> None:
    save(made(parts), tmp_path / "b")
    (tmp_path / "b" / name).unlink()
    with pytest.raises(BridgeError, match=f"expected {name}, found none; the bridge is incomplete"):
        loaded(tmp_path / "b")


def test_damaged_weights_and_pickles_are_not_read(parts: Path, tmp_path: Path) -> None:
    save(made(parts), tmp_path / "b")
    file = tmp_path / "b" / "bridge.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(BridgeError, match="expected tensors, found a damaged file"):
        loaded(tmp_path / "b")
    file.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(BridgeError, match="found a damaged file"):
        loaded(tmp_path / "b")


def test_a_config_without_a_key_is_incomplete(parts: Path, tmp_path: Path) -> None:
    save(made(parts), tmp_path / "b")
    file = tmp_path / "b" / "config.json"
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "frozen"}))
    with pytest.raises(BridgeError, match=r"config\.json: expected the key frozen, found none"):
        loaded(tmp_path / "b")


def test_a_changed_llm_is_noticed(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "own")
    save(Bridge(recipe), tmp_path / "b")
    tiny_llm(tmp_path / "own" / "llm", seed=1)
    folder = tmp_path / "own" / "llm"
    with pytest.raises(BridgeError, match=f"llm: {folder} has changed: expected contents .*; restore"):
        loaded(tmp_path / "b")


def test_a_newer_format_asks_for_an_upgrade(parts: Path, tmp_path: Path) -> None:
    save(made(parts), tmp_path / "b")
    config = tmp_path / "b" / "config.json"
    config.write_text(config.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(BridgeError, match="expected a bridge of format 1, found 2; upgrade mmbridge"):
        loaded(tmp_path / "b")


def test_what_is_no_bridge(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    tiny_llm(tmp_path / "llm")
    (tmp_path / "run" / "stages").mkdir(parents=True)
    for name, line in (
        ("empty", "expected a bridge, found no config.json"),
        ("file", "expected a bridge, found a file"),
        ("llm", "expected a bridge, found a model of type llama"),
        ("run", "expected a run with a finished stage, found none"),
        ("nowhere", "no such folder"),
    ):
        with pytest.raises(UserError, match=line):
            loaded(tmp_path / name)


def test_an_unknown_device_is_one_line(parts: Path, tmp_path: Path) -> None:
    save(made(parts), tmp_path / "b")
    for name in ("cuda:99", "nonsense"):
        with pytest.raises(UserError, match=f"device {name}: cannot be used"):
            Bridge.from_pretrained(tmp_path / "b", device=name)
    with pytest.raises(UserError, match="dtype int8: expected one of float32, bfloat16, float16"):
        Bridge.from_pretrained(tmp_path / "b", dtype="int8")


def test_the_frozen_parts_can_be_loaded_in_another_format(parts: Path, tmp_path: Path) -> None:
    save(made(parts), tmp_path / "b")
    bridge = Bridge.from_pretrained(tmp_path / "b", device="cpu", dtype="bfloat16")
    frozen: list[nn.Module] = [bridge.llm, bridge.encoders]
    assert {each.dtype for part in frozen for each in part.parameters()} == {torch.bfloat16}
    assert {each.dtype for each in bridge.connectors.parameters()} == {torch.float32}
    assert bridge.caption(picture(), max_new_tokens=2).perceptual_tokens == 16


def test_saving_fails_whole(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = made(parts)
    save(bridge, tmp_path / "b")
    before = {each.name: each.read_bytes() for each in (tmp_path / "b").iterdir()}

    def full(*_: Any) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(bridge_folder, "model_card", full)
    for name in ("b", "new"):
        with pytest.raises(OSError, match="disk full"):
            save(bridge, tmp_path / name)
    assert [each.name for each in tmp_path.iterdir()] == ["b"]
    assert {each.name: each.read_bytes() for each in (tmp_path / "b").iterdir()} == before


def test_only_bridges_are_replaced(parts: Path, tmp_path: Path) -> None:
    bridge = made(parts)
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        save(bridge, tmp_path / "empty")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("words")
    with pytest.raises(BridgeError, match=r"expected an empty folder or a bridge to replace, found chapter\.txt"):
        save(bridge, tmp_path / "thesis")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(BridgeError, match="found the files of something else"):
        save(bridge, tmp_path / "model")
    (tmp_path / "empty" / "notes.txt").write_text("mine")
    with pytest.raises(BridgeError, match=r"found notes\.txt"):
        save(bridge, tmp_path / "empty")


def test_local_parts_are_named_from_the_root(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(parts)
    recipe = tiny_recipe(parts, llm={"path": "llm"}, encoders={"image": {"kind": "transformers", "path": "./clip"}})
    save(Bridge(recipe), tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    bridge = loaded("b")
    assert (bridge.recipe.llm.path, bridge.recipe.encoders["image"].path) == (str(parts / "llm"), str(parts / "clip"))


def test_push_to_hub_uploads_the_folder(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads: list[tuple[str, set[str]]] = []

    def create_repo(self: Any, repo_id: str, **_: Any) -> Any:
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self: Any, *, repo_id: str, folder_path: Path, **_: Any) -> str:
        uploads.append((repo_id, {each.name for each in folder_path.iterdir()}))
        return "commit"

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    bridge = made(parts)
    files = {"recipe.yaml", "bridge.safetensors", "config.json", "metrics.json", "README.md"}
    assert bridge.push_to_hub("someone/bridge") == "commit"
    assert bridge.save_pretrained(tmp_path / "b", push_to_hub=True, repo_id="someone/other") == "commit"
    assert uploads == [("someone/bridge", files), ("someone/other", files)]


def test_a_llava_folder_is_a_bridge(tmp_path: Path) -> None:
    bridge = loaded(tiny_llava(tmp_path / "llava"))
    assert bridge.caption(picture(), max_new_tokens=3).perceptual_tokens == 16


@pytest.mark.parametrize("stages", ["one", "none"])
def test_the_card_says_how_it_was_trained(parts: Path, tmp_path: Path, stages: str) -> None:
    bridge = made(parts, stages=[]) if stages == "none" else made(parts)
    bridge.save_pretrained(tmp_path / "b")
    card = (tmp_path / "b" / "README.md").read_text(encoding="utf-8")
    assert ("Stages of the recipe, in order: align." in card) == (stages == "one")
    assert ("names no stages" in card) == (stages == "none")
