"""Weight masks as files, on an LLM for good, for a while, and in a bridge that trains under one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from torch import Tensor

from mmbridge.alignment.weights.masks import magnitude, random
from mmbridge.bridge import Bridge
from mmbridge.bridge_folder import fill
from mmbridge.errors import BridgeError, RecipeError
from mmbridge.llm.config import LLMConfig
from mmbridge.llm.model import LanguageModel
from mmbridge.llm.weight_mask import WeightMask, linear_layers, masked, matrix
from mmbridge.recipe import Recipe
from mmbridge.trainable import unfreeze
from tests.tiny import tiny_llm
from tests.tiny_bridge import tiny_recipe, tiny_stage


def llm_of(parts: Path, **changes: Any) -> LanguageModel:
    return LLMConfig(path=str(parts / "llm"), **changes).build()


@pytest.fixture(scope="module")
def file(parts: Path) -> Path:
    random(llm_of(parts), 0.5).save(parts / "half.safetensors")
    return parts / "half.safetensors"


def recipe(parts: Path, file: Path | None, *stages: dict[str, Any], **llm: Any) -> Recipe:
    mask = {} if file is None else {"mask": str(file)}
    return tiny_recipe(parts, *stages, llm={"path": str(parts / "llm")} | mask | llm)


def weights(llm: LanguageModel) -> dict[str, Tensor]:
    return {name: matrix(layer).clone() for name, layer in linear_layers(llm.layers).items()}


def test_what_is_saved_comes_back(parts: Path, file: Path) -> None:
    mask, again = random(llm_of(parts), 0.5), WeightMask.load(file)
    assert (again.llm, again.about, again.inputs) == (mask.llm, "random, seed 0", mask.inputs)
    assert [*again.bits] == [*mask.bits]
    assert all(np.array_equal(bits, again.bits[name]) for name, bits in mask.bits.items())
    assert [each.name for each in file.parent.iterdir() if "half" in each.name] == [file.name]


def test_a_weight_takes_a_bit(tmp_path: Path) -> None:
    """Rows of 11 inputs take two bytes, and what fills them up counts nowhere."""
    kept = torch.rand(5, 11, generator=torch.Generator().manual_seed(0)) < 0.5
    mask = WeightMask.of("llm", "test", {"0.a": kept})
    mask.save(tmp_path / "m.safetensors")
    assert load_file(tmp_path / "m.safetensors")["0.a"].nbytes == 10
    again = WeightMask.load(tmp_path / "m.safetensors")
    assert torch.equal(again.kept("0.a"), kept)
    assert torch.equal(again.counts("0.a"), kept.sum(dim=1))
    assert again.sparsity == pytest.approx(1 - kept.float().mean().item())


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_masked_restores_every_bit(tmp_path: Path, family: str) -> None:
    llm = LLMConfig(path=str(tiny_llm(tmp_path, family)), dtype="bfloat16").build()
    before, mask = weights(llm), magnitude(llm, 0.4)
    names = {name: each.clone() for name, each in llm.model.state_dict().items()}
    with masked(llm, mask), masked(llm, random(llm, 0.2)):
        for name, weight in weights(llm).items():
            assert not weight[~mask.kept(name)].any()
            assert weight[mask.kept(name)].any()
    with pytest.raises(KeyboardInterrupt), masked(llm, mask):
        raise KeyboardInterrupt
    assert all(torch.equal(before[name], each) for name, each in weights(llm).items())
    assert all(torch.equal(names[name], each) for name, each in llm.model.state_dict().items())


def test_an_llm_is_built_with_its_mask(parts: Path, file: Path) -> None:
    """Its weights are W ⊙ mask in every layer, and nothing else differs."""
    whole, bare, mask = llm_of(parts), llm_of(parts, mask=str(file)), WeightMask.load(file)
    for name, weight in weights(whole).items():
        assert torch.equal(weights(bare)[name], weight * mask.kept(name))
    masked_names = {id(layer.weight) for layer in linear_layers(bare.layers).values()}
    others = {name: each for name, each in bare.model.named_parameters() if id(each) not in masked_names}
    assert any("embed" in name for name in others)
    assert all(torch.equal(each, whole.model.get_parameter(name)) for name, each in others.items())
    with masked(whole, mask):
        assert all(torch.equal(weights(bare)[name], each) for name, each in weights(whole).items())


def test_under_lora_the_base_is_masked(parts: Path, file: Path) -> None:
    llm, mask = llm_of(parts, mask=str(file), lora={"rank": 2, "alpha": 2}), WeightMask.load(file)
    assert any("lora_A" in name for name, _ in llm.named_parameters())
    assert all(not weight[~mask.kept(name)].any() for name, weight in weights(llm).items())


def test_training_under_a_mask_leaves_it_as_it_is(parts: Path, file: Path, tmp_path: Path) -> None:
    """A connector is retrained from that of a bridge without a mask; then the bridge is moved and loaded again."""
    before = recipe(parts, None).train(out=tmp_path / "whole")
    stage = tiny_stage(init=str(tmp_path / "whole"))
    trained = recipe(parts, file, stage).train(out=tmp_path / "repaired")
    expected = {name: weight * WeightMask.load(file).kept(name) for name, weight in weights(llm_of(parts)).items()}
    own, new = before.own_tensors(), trained.own_tensors()
    assert own.keys() == new.keys()
    assert not all(torch.equal(each, new[name]) for name, each in own.items())
    for bridge in (trained, Bridge.from_pretrained(tmp_path / "repaired", device="cpu")):
        assert all(torch.equal(expected[name], each) for name, each in weights(bridge.llm).items())
    (tmp_path / "repaired" / "bridge").rename(tmp_path / "moved")
    moved = file.rename(tmp_path / "gone.safetensors")
    try:
        again = Bridge.from_pretrained(tmp_path / "moved", device="cpu")
        assert all(torch.equal(expected[name], each) for name, each in weights(again.llm).items())
        again.save_pretrained(tmp_path / "copy")
        assert (tmp_path / "copy" / "mask.safetensors").read_bytes() == moved.read_bytes()
        again.save_pretrained(tmp_path / "moved")  # in place of the one that its mask was read from
        Bridge.from_pretrained(tmp_path / "moved", device="cpu")
    finally:
        moved.rename(file)


def test_weights_trained_without_a_mask_are_masked_too(parts: Path, file: Path, tmp_path: Path) -> None:
    """A bridge whose stage trained part of the LLM carries whole weights into one that is masked."""
    whole, name = Bridge(recipe(parts, None)), "llm.model.model.layers.1.mlp.up_proj.weight"
    whole.unfrozen.add(name)
    whole.get_parameter(name).data.fill_(3.0)
    whole.save_pretrained(tmp_path / "b")
    bare = Bridge(recipe(parts, file))
    fill(bare, tmp_path / "b")
    assert torch.equal(bare.get_parameter(name), 3.0 * WeightMask.load(file).kept("1.mlp.up_proj"))


def test_a_bridge_is_refused_without_its_mask_or_with_another(parts: Path, file: Path, tmp_path: Path) -> None:
    Bridge(recipe(parts, file)).save_pretrained(tmp_path / "b")
    kept = tmp_path / "b" / "mask.safetensors"
    own = kept.read_bytes()
    random(llm_of(parts), 0.5, seed=1).save(kept)
    with pytest.raises(BridgeError, match=r"^llm\.mask: .*mask\.safetensors has changed: expected contents"):
        Bridge.from_pretrained(tmp_path / "b", device="cpu")
    kept.unlink()
    with pytest.raises(BridgeError, match=r"expected mask\.safetensors, found none; the bridge is incomplete$"):
        Bridge.from_pretrained(tmp_path / "b", device="cpu")
    kept.write_bytes(own)
    text = tmp_path / "b" / "recipe.yaml"
    with_mask = text.read_text()
    text.write_text("".join(line for line in with_mask.splitlines(True) if not line.startswith("  mask: ")))
    assert text.read_text() != with_mask
    with pytest.raises(
        BridgeError, match=r"^llm\.mask: expected the mask that the bridge was trained with, .*, found none"
    ):
        Bridge.from_pretrained(tmp_path / "b", device="cpu")


def test_masked_weights_do_not_train(parts: Path, file: Path) -> None:
    stage = tiny_stage(script="instruct", train=["connectors.*", "llm.*.1.mlp.up_proj*"])
    given = recipe(parts, file, stage)
    line = r"\.train\.1: llm\.\S+up_proj\.weight is masked: .*; train llm\.lora over it, or set llm\.mask to null$"
    with pytest.raises(RecipeError, match=line):
        unfreeze(Bridge(given), given.stages[0], "stages.align", parts=["connectors.", "llm."])


def damaged(file: Path, change: Any) -> None:
    with safe_open(file, framework="numpy") as opened:
        told = opened.metadata()
    tensors = load_file(file)
    change(tensors, told)
    save_file(tensors, file, metadata=told)


LAYER = "1.mlp.up_proj"
OTHER, DAMAGED = "expected a weight mask, found other tensors; ", "expected a weight mask, found a damaged file"
SHAPE = r"1\.mlp\.up_proj: expected a weight mask of shape \(48, 32\), found "


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda t, m: m.pop("format"), OTHER),
        (lambda t, m: m.update(version="2"), OTHER),
        (lambda t, m: m.update(llm="0" * 64), r"expected a mask of .*, contents \w{12}, found one of 000000000000; "),
        (lambda t, m: m.update(inputs="{"), DAMAGED),
        (lambda t, m: m.pop("inputs"), DAMAGED),
        (lambda t, m: m.update(inputs="[1]"), DAMAGED),
        (lambda t, m: t.pop(LAYER), r"expected the layers that its header names, found 1\.mlp\.up_proj in one"),
        (lambda t, m: t.update(more=t[LAYER]), "expected the layers that its header names, found more in one"),
        (lambda t, m: [each.fill(0) for each in t.values()], "found one that leaves none"),
        (lambda t, m: t.update({LAYER: t[LAYER].astype(np.float32)}), DAMAGED),
        (lambda t, m: t.update({LAYER: t[LAYER][:-1].copy()}), SHAPE + r"\(47, 32\)"),
        (lambda t, m: t.update({LAYER: t[LAYER][:, :-1].copy()}), SHAPE + "3 bytes a row"),
    ],
)
def test_what_does_not_fit_is_one_line(parts: Path, file: Path, tmp_path: Path, change: Any, line: str) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(file.read_bytes())
    damaged(bad, change)
    with pytest.raises(RecipeError, match=line) as caught:
        llm_of(parts, mask=str(bad))
    assert str(caught.value).startswith(str(bad))
    assert "\n" not in str(caught.value)


def test_a_mask_of_another_llm_does_not_fit(parts: Path, file: Path, tmp_path: Path) -> None:
    other = LLMConfig(path=str(tiny_llm(tmp_path, "llama", num_hidden_layers=1))).build()
    with (
        pytest.raises(RecipeError, match=r"expected no such layer among the layers of a weight mask, found 1\.mlp"),
        masked(other, WeightMask.load(file)),
    ):
        raise AssertionError


@pytest.mark.parametrize("content", [None, b"", b"half of it"], ids=["none", "empty", "cut"])
def test_no_mask_is_one_line(parts: Path, file: Path, tmp_path: Path, content: bytes | None) -> None:
    bad = tmp_path / "bad.safetensors"
    if content is not None:
        bad.write_bytes(file.read_bytes()[: len(file.read_bytes()) // 2] if content else b"")
    with pytest.raises(RecipeError, match="expected a weight mask, found") as caught:
        llm_of(parts, mask=str(bad))
    assert "\n" not in str(caught.value)
    with pytest.raises(RecipeError, match="expected a weight mask, found"):
        Bridge(recipe(parts, bad))
    with pytest.raises(RecipeError, match="expected a weight mask, found"):
        recipe(parts, bad).train(out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_quantised_weights_have_no_mask(parts: Path, file: Path) -> None:
    with pytest.raises(ValidationError, match="a mask needs whole weights: set quantization to null"):
        LLMConfig(path=str(parts / "llm"), mask=str(file), quantization="int8")
