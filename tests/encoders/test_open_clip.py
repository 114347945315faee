"""Our features against open_clip's own tower, and against transformers' CLIP with the same weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmbridge.encoders.config import OpenCLIPConfig
from mmbridge.encoders.vision import VisionEncoder
from mmbridge.errors import RecipeError
from tests.encoders.models import picture, seen
from tests.tiny import tiny_clip

Folders = Callable[[str], Path]


def library(folder: Path) -> tuple[Any, Tensor]:
    """open_clip's visual tower and two images prepared by open_clip."""
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    return model.eval().visual, torch.stack([transform(picture(50, 40)), transform(picture(33, 47, seed=1))])


def encoder(folder: Path, **options: Any) -> VisionEncoder:
    return OpenCLIPConfig(path=str(folder), **options).build()


def encoded(folder: Path, **options: Any) -> Tensor:
    built = encoder(folder, **options)
    return built.encode([built.prepare(picture(50, 40)), built.prepare(picture(33, 47, seed=1))]).values


@pytest.mark.proof("open_clip", against="open_clip's forward_intermediates")
@pytest.mark.parametrize("layers", [(-1,), (-2,), (1,), (1, -1)], ids=str)
@pytest.mark.parametrize("norm", [False, True])
def test_intermediates(folder_of: Folders, layers: tuple[int, ...], norm: bool) -> None:
    folder = folder_of("open_clip")
    visual, pixels = library(folder)
    blocks = sorted(layer - 1 if layer > 0 else 4 + layer for layer in layers)  # open_clip counts blocks from 0
    with torch.no_grad():
        taken = visual.forward_intermediates(
            pixels, indices=blocks, normalize_intermediates=norm, output_fmt="NLC", output_extra_tokens=True
        )
    pairs = zip(taken["image_intermediates_prefix"], taken["image_intermediates"], strict=True)
    whole = torch.cat([torch.cat(pair, dim=1) for pair in pairs], dim=-1)
    ours = {"layer": layers if len(layers) > 1 else layers[0], "norm": norm}
    torch.testing.assert_close(encoded(folder, **ours, tokens="all"), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(encoded(folder, **ours), whole[:, 1:], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(encoded(folder, **ours, tokens="cls"), whole[:, :1], rtol=1e-5, atol=1e-5)


@pytest.mark.proof("open_clip", against="open_clip's image embedding")
def test_pooled(folder_of: Folders) -> None:
    visual, pixels = library(folder_of("open_clip"))
    with torch.no_grad():
        embedding = visual(pixels)
    assert embedding.shape == (2, 24)
    torch.testing.assert_close(encoded(folder_of("open_clip"), tokens="pooled")[:, 0], embedding, rtol=1e-5, atol=1e-5)


def as_open_clip(folder: Path, target: Path) -> None:
    """transformers' CLIP vision tower, its weights under open_clip's names beside an untrained text tower."""
    model = transformers.CLIPVisionModelWithProjection.from_pretrained(folder)
    config, source = model.config, model.vision_model.state_dict()
    sizes: dict[str, Any] = {"layers": config.num_hidden_layers, "width": config.hidden_size, "mlp_ratio": 1.5}
    sizes |= {"image_size": config.image_size, "patch_size": config.patch_size, "head_width": 8}
    text = {"context_length": 16, "vocab_size": 64, "width": 32, "heads": 4, "layers": 1}
    made = {"embed_dim": config.projection_dim, "quick_gelu": True, "vision_cfg": sizes, "text_cfg": text}
    target.mkdir()
    (target / "open_clip_config.json").write_text(json.dumps({"model_cfg": made, "preprocess_cfg": {}}))
    weights = open_clip.create_model(f"local-dir:{target}", load_weights=False).state_dict()
    named = {
        "class_embedding": source["embeddings.class_embedding"],
        "positional_embedding": source["embeddings.position_embedding.weight"],
        "conv1.weight": source["embeddings.patch_embedding.weight"],
        "proj": model.visual_projection.weight.T,
    }
    for norm, name in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")):
        named |= {f"{norm}.{part}": source[f"{name}.{part}"] for part in ("weight", "bias")}
    for block in range(config.num_hidden_layers):
        ours, theirs = f"transformer.resblocks.{block}", f"encoder.layers.{block}"
        for part in ("weight", "bias"):
            projections = [source[f"{theirs}.self_attn.{letter}_proj.{part}"] for letter in "qkv"]
            named[f"{ours}.attn.in_proj_{part}"] = torch.cat(projections)
            for here, there in (
                ("attn.out_proj", "self_attn.out_proj"),
                ("ln_1", "layer_norm1"),
                ("ln_2", "layer_norm2"),
                ("mlp.c_fc", "mlp.fc1"),
                ("mlp.c_proj", "mlp.fc2"),
            ):
                named[f"{ours}.{here}.{part}"] = source[f"{theirs}.{there}.{part}"]
    weights |= {f"visual.{name}": tensor for name, tensor in named.items()}
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, target / "open_clip_model.safetensors")


@pytest.mark.proof("open_clip", against="transformers' CLIPVisionModel hidden_states, attentions and image_embeds")
def test_the_same_weights_in_transformers(tmp_path: Path) -> None:
    """A layer means the same in both libraries, -1 included: what leaves the last block, before its norm."""
    folder = tiny_clip(tmp_path / "clip")
    as_open_clip(folder, tmp_path / "open_clip")
    model: Any = transformers.CLIPVisionModelWithProjection.from_pretrained(folder, attn_implementation="eager")
    built = encoder(tmp_path / "open_clip", layer=(0, 1, -2, -1), tokens="all")
    views = built.prepare(picture(32, 32))
    with torch.no_grad():
        output = model(seen(built, picture(32, 32)), output_hidden_states=True, output_attentions=True)
    states = [output.hidden_states[layer] for layer in (0, 1, -2, -1)]
    torch.testing.assert_close(built.encode([views]).values, torch.cat(states, dim=-1), rtol=1e-5, atol=5e-5)
    for layer in (0, -1):
        rows = built.attention_rows(views.inputs, layer, [0, 7])
        torch.testing.assert_close(rows, output.attentions[layer][:, :, [0, 7]], rtol=1e-5, atol=1e-5)
    pooled = encoder(tmp_path / "open_clip", tokens="pooled")
    torch.testing.assert_close(pooled.encode([views]).values[:, 0], output.image_embeds, rtol=1e-5, atol=1e-5)


@pytest.mark.proof("open_clip", against="open_clip's own transform")
def test_own_preprocessing(folder_of: Folders) -> None:
    built = encoder(folder_of("open_clip"))
    assert built.prepare(picture(50, 40)).inputs.dtype == torch.uint8
    assert torch.equal(seen(built, picture(50, 40), picture(33, 47, seed=1)), library(folder_of("open_clip"))[1])


@pytest.mark.proof("open_clip", against="open_clip's forward_intermediates of a tower carried by timm")
def test_a_tower_carried_by_timm(folder_of: Folders) -> None:
    folder = folder_of("open_clip_timm")
    visual, pixels = library(folder)
    with torch.no_grad():
        taken = visual.forward_intermediates(pixels, indices=[-2], output_fmt="NLC")
        embedding = visual(pixels)
    torch.testing.assert_close(encoded(folder, layer=-2), taken["image_intermediates"][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(encoded(folder, tokens="pooled")[:, 0], embedding, rtol=1e-5, atol=1e-6)


def test_the_fused_path_is_left_as_it_was(folder_of: Folders) -> None:
    before = torch.backends.mha.get_fastpath_enabled()
    encoded(folder_of("open_clip"))
    assert torch.backends.mha.get_fastpath_enabled() == before


@pytest.mark.parametrize(
    ("family", "message"),
    [("open_clip_resnet", "expected a vision transformer, found ModifiedResNet"), ("clip", "open_clip cannot read it")],
)
def test_what_cannot_be_is_said_in_one_line(folder_of: Folders, family: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        encoder(folder_of(family))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_weight_is_refused(folder_of: Folders, tmp_path: Path) -> None:
    folder = folder_of("open_clip")
    weights = load_file(folder / "open_clip_model.safetensors")
    del weights["visual.ln_post.bias"]
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_bytes((folder / "open_clip_config.json").read_bytes())
    with pytest.raises(RecipeError, match="open_clip cannot read it"):
        encoder(tmp_path)
