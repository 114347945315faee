"""What holds for the encoders of all three libraries: frozen, true to their facts, no deeper than they must."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mmbridge.encoders.base import Grid, Views
from mmbridge.encoders.config import OpenCLIPConfig, TimmConfig, TransformersConfig, VisionConfig
from mmbridge.encoders.vision import VisionEncoder
from mmbridge.errors import RecipeError
from mmbridge.evaluation.flops import executed_flops
from tests.encoders.models import picture

Folders = Callable[[str], Path]

PREFIX = {
    **{"clip": 1, "siglip": 0, "dinov2": 1, "dinov2_registers": 4, "mae": 1, "blip2": 1, "instructblip": 1, "llava": 1},
    **{"timm_vit": 1, "timm_registers": 4, "timm_siglip": 0, "timm_eva": 1, "open_clip": 1},
}
ONE_EACH = ["clip", "mae", "timm_vit", "open_clip"]


def encoder(folder_of: Folders, family: str, **options: Any) -> VisionEncoder:
    config: type[VisionConfig] = TransformersConfig
    if family.startswith(("timm", "open_clip")):
        config = TimmConfig if family.startswith("timm") else OpenCLIPConfig
    built: VisionEncoder = config(path=str(folder_of(family)), **options).build()  # type: ignore[attr-defined]
    return built


@pytest.mark.parametrize("aspect", ["own", "pad", "tiles"])
@pytest.mark.parametrize("layer", [-1, (0, -2)], ids=str)
@pytest.mark.parametrize("family", PREFIX)
def test_facts_are_what_comes_out(folder_of: Folders, family: str, layer: int, aspect: str) -> None:
    prefix, taps = PREFIX[family], 1 if isinstance(layer, int) else 2
    choices = {"all": (4, prefix), "patches": (4, 0)} | ({"cls": (1, 0)} if prefix else {})
    choices |= {"pooled": (1, 0)} if taps == 1 and family != "mae" else {}
    for tokens, (side, before) in choices.items():
        built = encoder(folder_of, family, layer=layer, tokens=tokens, aspect=aspect)
        media = [built.prepare(picture(90, 40)), built.prepare(picture(30, 30))]
        features = built.encode(media)
        views = sum(len(medium.inputs) for medium in media)
        assert views == (2 if aspect != "tiles" else sum(medium.tiling.views for medium in media if medium.tiling))
        assert features.values.shape == (views, built.facts.tokens, built.facts.width)
        assert features.mask.shape == features.values.shape[:2]
        assert features.mask.all()
        assert (built.facts.grid, built.facts.prefix) == (Grid(1, side, side), before)
        assert features.grids == (built.facts.grid,) * views
        assert features.prefix == before
        assert features.tilings == tuple(medium.tiling for medium in media)
        width = 24 if family == "open_clip" and tokens == "pooled" else 32
        assert built.facts.width == width * taps


@pytest.mark.parametrize("family", ONE_EACH)
def test_frozen_in_every_way(folder_of: Folders, family: str) -> None:
    built = encoder(folder_of, family)
    parent = nn.ModuleDict({"encoder": built, "other": nn.Linear(2, 2)})
    parent.train()
    assert parent["other"].training
    assert not any(module.training for module in built.modules())
    assert not any(parameter.requires_grad for parameter in built.parameters())
    values = built.encode([built.prepare(picture(40, 40))]).values
    assert not values.requires_grad
    assert not values.is_inference()  # a connector must be able to learn from it
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("family", ONE_EACH)
def test_two_forwards_agree_bit_for_bit(folder_of: Folders, family: str) -> None:
    first, second = encoder(folder_of, family), encoder(folder_of, family)
    views = [first.prepare(picture(50, 40)), first.prepare(picture(20, 60))]
    values = first.encode(views).values
    assert torch.equal(values, first.encode(views).values)
    assert torch.equal(values, second.encode(views).values)


@pytest.mark.parametrize("family", ONE_EACH)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(folder_of: Folders, family: str, dtype: str) -> None:
    built, exact = encoder(folder_of, family, dtype=dtype), encoder(folder_of, family)
    views = [built.prepare(picture(50, 40))]
    assert views[0].inputs.dtype == torch.uint8
    values = built.encode(views).values
    assert values.dtype == getattr(torch, dtype)
    wanted = exact.encode(views).values
    assert (values.float() - wanted).abs().mean() < 0.02 * wanted.abs().mean()


@pytest.mark.parametrize("family", ONE_EACH)
@pytest.mark.parametrize("aspect", ["own", "pad", "tiles"])
def test_preparation_travels_to_workers(folder_of: Folders, family: str, aspect: str) -> None:
    """Both what prepares and what is prepared can be pickled, and neither drags the weights along."""
    built = encoder(folder_of, family, aspect=aspect)
    packed = pickle.dumps(built.prepare)
    assert len(packed) < 20_000
    image = picture(50, 40)
    views, again = pickle.loads(pickle.dumps(built.prepare(image))), pickle.loads(packed)(image)
    assert isinstance(views, Views)
    assert torch.equal(views.inputs, again.inputs)
    assert views.tiling == again.tiling
    assert views.inputs.dtype == torch.uint8


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_images_of_other_modes(folder_of: Folders, mode: str) -> None:
    for family in ONE_EACH:
        built = encoder(folder_of, family)
        image = picture(50, 40).convert(mode)
        assert torch.equal(built.prepare(image).inputs, built.prepare(image.convert("RGB")).inputs)


@pytest.mark.parametrize("family", PREFIX)
def test_what_runs_is_what_the_taps_need_and_no_more(folder_of: Folders, family: str) -> None:
    """Counted by torch, against the patches and the blocks up to the deepest tap: those behind it do not run."""
    for layer in (1, 2, (1, -1)):
        built = encoder(folder_of, family, layer=layer)
        views = [built.prepare(picture(32, 32, seed)) for seed in range(3)]
        counted = executed_flops(lambda built=built, views=views: built.encode(views))  # type: ignore[misc]
        assert counted == 3 * built.flops()
        assert len(built.blocks) == max(built.taps)


@pytest.mark.parametrize("family", ONE_EACH)
def test_a_layer_counted_from_the_end(folder_of: Folders, family: str) -> None:
    depth = 3 if family == "clip" else 4
    image = picture(50, 40)
    for negative, positive in ((-1, depth), (-2, depth - 1), (-depth - 1, 0)):
        one, other = encoder(folder_of, family, layer=negative), encoder(folder_of, family, layer=positive)
        assert torch.equal(one.encode([one.prepare(image)]).values, other.encode([other.prepare(image)]).values)


@pytest.mark.parametrize("layer", [4, -5])
def test_layer_out_of_range(folder_of: Folders, layer: int) -> None:
    with pytest.raises(RecipeError, match=rf"expected a layer from -4 to 3, found {layer}; the encoder has 3 blocks"):
        encoder(folder_of, "clip", layer=(1, layer))


def test_attention_rows_of_what_is_not_there(folder_of: Folders) -> None:
    built = encoder(folder_of, "clip", layer=-2)
    inputs = built.prepare(picture(32, 32)).inputs
    assert built.attention_rows(inputs, -2, [0]).shape == (1, 4, 1, 17)
    with pytest.raises(RecipeError, match="expected a block from 0 to 1, the last that the taps need, found -1; tap"):
        built.attention_rows(inputs, -1, [0])
    with pytest.raises(RecipeError, match=r"expected a block from 0 to 1, the last that the taps need, found 7$"):
        built.attention_rows(inputs, 7, [0])
    with pytest.raises(RecipeError, match="expected tokens from 0 to 16, found 17"):
        built.attention_rows(inputs, 0, [0, 17])


def test_attention_of_an_unknown_form_is_refused(folder_of: Folders) -> None:
    built = encoder(folder_of, "timm_vit")
    for block in built.model.blocks:  # type: ignore[union-attr]
        block.attn.fused_attn = False
    with pytest.raises(RecipeError, match="block 0 does not compute its attention in a form known here"):
        built.attention_rows(built.prepare(picture(32, 32)).inputs, 0, [0])


def test_attention_rows_leave_nothing_behind(folder_of: Folders) -> None:
    built = encoder(folder_of, "clip")
    built.attention_rows(built.prepare(picture(32, 32)).inputs, 0, [0])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in built.modules())


@pytest.mark.parametrize("kind", [OpenCLIPConfig, TimmConfig, TransformersConfig])
def test_folders_that_are_not_there(tmp_path: Path, kind: type[OpenCLIPConfig]) -> None:
    with pytest.raises(RecipeError, match="no such folder; give a folder, a hub id such as org/name, or world:NAME"):
        kind(path=str(tmp_path / "missing")).build()
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(RecipeError, match=r"expected weights in safetensors, found only pytorch_model\.bin"):
        kind(path=str(tmp_path)).build()


def test_one_norm_too_many(folder_of: Folders) -> None:
    with pytest.raises(ValueError, match="the pooled output has no layer or norm to choose"):
        encoder(folder_of, "clip", tokens="pooled", norm=True)
