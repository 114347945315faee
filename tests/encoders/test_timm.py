"""Our features against timm's own forward_intermediates, forward_head and transforms."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.data import create_transform, resolve_data_config
from torch import Tensor

from mmbridge.encoders.config import TimmConfig
from mmbridge.encoders.vision import VisionEncoder
from mmbridge.errors import RecipeError
from tests.encoders.models import picture, seen

Folders = Callable[[str], Path]

PREFIX = {"timm_vit": 1, "timm_registers": 4, "timm_siglip": 0, "timm_eva": 1}


def library_model(folder: Path) -> Any:
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def library_pixels(folder: Path) -> Tensor:
    transform = create_transform(**resolve_data_config(model=library_model(folder)))
    return torch.stack([transform(picture(50, 40)), transform(picture(33, 47, seed=1))])


def encoder(folder: Path, **options: Any) -> VisionEncoder:
    return TimmConfig(path=str(folder), **options).build()


def encoded(folder: Path, **options: Any) -> Tensor:
    built = encoder(folder, **options)
    return built.encode([built.prepare(picture(50, 40)), built.prepare(picture(33, 47, seed=1))]).values


@pytest.mark.proof("timm", against="timm's forward_intermediates")
@pytest.mark.parametrize("layers", [(-1,), (-2,), (1,), (1, -1)], ids=str)
@pytest.mark.parametrize("family", PREFIX)
@pytest.mark.parametrize("norm", [False, True])
def test_intermediates(folder_of: Folders, family: str, layers: tuple[int, ...], norm: bool) -> None:
    folder, prefix = folder_of(family), PREFIX[family]
    blocks = sorted(layer - 1 if layer > 0 else 4 + layer for layer in layers)  # timm counts blocks from 0
    with torch.no_grad():
        taken = library_model(folder).forward_intermediates(
            library_pixels(folder),
            indices=blocks,
            norm=norm,
            output_fmt="NLC",
            return_prefix_tokens=prefix > 0,
            intermediates_only=True,
        )
    parts = [torch.cat([one[1], one[0]], dim=1) if prefix else one for one in taken]
    whole = torch.cat(parts, dim=-1)
    ours = {"layer": layers if len(layers) > 1 else layers[0], "norm": norm}
    torch.testing.assert_close(encoded(folder, **ours, tokens="all"), whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(encoded(folder, **ours), whole[:, prefix:], rtol=1e-5, atol=1e-6)
    if prefix:
        torch.testing.assert_close(encoded(folder, **ours, tokens="cls"), whole[:, :1], rtol=1e-5, atol=1e-6)


@pytest.mark.proof("timm", against="timm's embedding layers")
def test_layer_0_enters_the_first_block(folder_of: Folders) -> None:
    folder = folder_of("timm_vit")
    model = library_model(folder)
    with torch.no_grad():
        embedded = model.norm_pre(model._pos_embed(model.patch_embed(library_pixels(folder))))
    torch.testing.assert_close(encoded(folder, layer=0, tokens="all"), embedded, rtol=1e-5, atol=1e-6)


@pytest.mark.proof("timm", against="timm's forward_head before its classifier")
@pytest.mark.parametrize("family", PREFIX)
def test_pooled(folder_of: Folders, family: str) -> None:
    folder = folder_of(family)
    model = library_model(folder)
    with torch.no_grad():
        pooled = model.forward_head(model.forward_features(library_pixels(folder)), pre_logits=True)
    torch.testing.assert_close(encoded(folder, tokens="pooled")[:, 0], pooled, rtol=1e-5, atol=1e-6)


@pytest.mark.proof("timm", against="timm's attention maps with its fused attention off")
@pytest.mark.parametrize("family", PREFIX)
def test_attention_rows(folder_of: Folders, family: str) -> None:
    """EVA turns its queries and keys by their place in the image; its rows are right because nothing is assumed."""
    folder = folder_of(family)
    pixels, model = library_pixels(folder), library_model(folder)
    maps: list[Tensor] = []
    for block in model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _, inputs, __: maps.append(inputs[0]))
    with torch.no_grad():
        model.forward_features(pixels)
    built = encoder(folder)
    queries = [0, 5, built.facts.tokens - 1]
    for layer in (0, 2, -1):
        rows = built.attention_rows(pixels, layer, queries)
        torch.testing.assert_close(rows, maps[layer][:, :, queries], rtol=1e-5, atol=1e-6)


@pytest.mark.proof("timm", against="timm's create_transform")
@pytest.mark.parametrize("family", PREFIX)
def test_own_preprocessing(folder_of: Folders, family: str) -> None:
    built = encoder(folder_of(family))
    assert built.prepare(picture(50, 40)).inputs.dtype == torch.uint8
    assert torch.equal(seen(built, picture(50, 40), picture(33, 47, seed=1)), library_pixels(folder_of(family)))


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("timm_siglip", {"tokens": "cls"}, "expected a CLS token, found none; ask for patches or pooled"),
        ("timm_resnet", {}, "expected a vision transformer, found ResNet"),
        ("clip", {}, "timm cannot read it"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    folder_of: Folders, family: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        encoder(folder_of(family), **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_pickle_is_read_beside_safetensors(folder_of: Folders, tmp_path: Path) -> None:
    """timm itself would take ``pytorch_model.bin`` before safetensors of a name it does not know."""
    folder = folder_of("timm_vit")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "weights.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"not a pickle")
    assert torch.equal(encoded(tmp_path), encoded(folder))
