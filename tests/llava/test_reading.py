"""A transformers LLaVA folder read as a bridge computes what transformers computes from it."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from mmbridge.bridge import Bridge
from mmbridge.errors import BridgeError, RecipeError
from mmbridge.llava import is_llava, load_llava, read_recipe
from tests.llava.checkpoints import Reference, tiny_llava_next
from tests.llava.parity import gradients, largest_gap, same_ids, same_texts
from tests.tiny import tiny_clip, tiny_llava, tiny_llm


@pytest.mark.parametrize("tower", ["clip", "siglip"])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_logits_texts_and_gradients(tower: Literal["clip", "siglip"], family: str, tmp_path: Path) -> None:
    """Against LlavaForConditionalGeneration: a mixed batch of images and text alone, fp32."""
    folder = tiny_llava(tmp_path / "llava", tower, family)
    bridge, reference = load_llava(folder), Reference(folder)
    assert largest_gap(bridge, reference) <= 1e-4
    ours, theirs = gradients(bridge, reference)
    for name, gradient in theirs.items():
        assert float((ours[name] - gradient).norm() / gradient.norm()) <= 1e-5, name
    same_ids(bridge, reference)
    same_texts(bridge, folder)


@pytest.mark.parametrize("family", ["qwen3", "mistral", "gemma", "gemma2", "phi"])
def test_other_llms(family: str, tmp_path: Path) -> None:
    folder = tiny_llava(tmp_path / "llava", "clip", family)
    bridge = load_llava(folder)
    assert largest_gap(bridge, Reference(folder)) <= 1e-4
    same_texts(bridge, folder, count=4)


@pytest.mark.parametrize(
    ("tower", "overrides"),
    [
        ("clip", {"vision_feature_layer": -1}),
        ("siglip", {"vision_feature_layer": -1}),
        ("clip", {"vision_feature_layer": [1, -1]}),
        ("clip", {"vision_feature_select_strategy": "full"}),
        ("clip", {"projector_hidden_act": "gelu_pytorch_tanh", "multimodal_projector_bias": False}),
    ],
)
def test_configurations(tower: Literal["clip", "siglip"], overrides: dict[str, Any], tmp_path: Path) -> None:
    folder = tiny_llava(tmp_path / "llava", tower, **overrides)
    assert largest_gap(load_llava(folder), Reference(folder)) <= 1e-4


@pytest.mark.parametrize("tower", ["clip", "siglip"])
def test_llava_next(tower: Literal["clip", "siglip"], tmp_path: Path) -> None:
    """Against LlavaNextForConditionalGeneration: thumbnails, tiles of three shapes, unpadding and newlines."""
    folder = tiny_llava_next(tmp_path / "llava", tower)
    bridge = load_llava(folder)
    assert largest_gap(bridge, Reference(folder)) <= 1e-4
    same_texts(bridge, folder, count=4)


def test_checkpoints_of_transformers_5_names(tmp_path: Path) -> None:
    """Names with and without ``model.`` in front are in use."""
    from safetensors.torch import load_file, save_file

    folder = tiny_llava(tmp_path / "llava")
    expected = load_llava(folder).state_dict()
    state = load_file(folder / "model.safetensors")
    renamed = {
        "lm_head.weight"
        if "lm_head" in name
        else "model." + name.replace("language_model.model", "language_model"): tensor
        for name, tensor in state.items()
    }
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    found = load_llava(folder).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_half_precision_is_kept(tmp_path: Path) -> None:
    folder = tiny_llava(tmp_path / "llava")
    Reference(folder).model.bfloat16().save_pretrained(folder)
    recipe = read_recipe(folder)
    assert (recipe.llm.dtype, recipe.encoders["vision"].dtype) == ("bfloat16", "bfloat16")
    assert read_recipe(folder, dtype="float32").llm.dtype == "float32"


def test_from_pretrained_and_back(tmp_path: Path) -> None:
    """``Bridge.from_pretrained`` takes the folder, and what it gives saves and loads as any bridge does."""
    folder = tiny_llava(tmp_path / "llava")
    assert is_llava(folder)
    bridge = Bridge.from_pretrained(folder, device="cpu")
    bridge.save_pretrained(tmp_path / "bridge")
    again = Bridge.from_pretrained(tmp_path / "bridge", device="cpu")
    assert largest_gap(again, Reference(folder)) <= 1e-4


def edit(folder: Path, section: str | None = None, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (config[section] if section else config).update(values)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("section", "values", "line"),
    [
        (None, {"vision_feature_select_strategy": "default"}, "a tower without CLS token, found default"),
        (None, {"projector_hidden_act": "quick_gelu"}, "projector_hidden_act to be one of gelu, .*, found quick_gelu"),
        (None, {"projector_hidden_act": "linear"}, "expected an identity as the second map"),
        ("vision_config", {"model_type": "dinov2"}, "expected a vision tower of clip_vision_model, .*, found dinov2"),
        ("text_config", {"model_type": "opt"}, "expected an LLM of llama, .*, found opt"),
        ("text_config", {"model_type": "gpt2"}, "expected an LLM of llama, .*, found gpt2"),
    ],
)
def test_what_has_no_counterpart_is_refused_in_one_line(
    section: str | None, values: dict[str, Any], line: str, tmp_path: Path
) -> None:
    folder = tiny_llava(tmp_path / "llava", "siglip")
    edit(folder, section, **values)
    with pytest.raises(RecipeError, match=line) as caught:
        read_recipe(folder)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(folder))


def test_missing_projector_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_llava(tmp_path / "llava")
    state = load_file(folder / "model.safetensors")
    del state["multi_modal_projector.linear_2.bias"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BridgeError, match=r"the connector's projector\.linears\.1\.bias, found nothing"):
        load_llava(folder)


def test_other_folders_are_not_llava(tmp_path: Path) -> None:
    assert not is_llava(tiny_clip(tmp_path / "clip"))
    assert not is_llava(tiny_llm(tmp_path / "llm"))
    assert not is_llava(tmp_path)
    with pytest.raises(RecipeError, match="expected a LLaVA folder, found clip"):
        read_recipe(tmp_path / "clip")
