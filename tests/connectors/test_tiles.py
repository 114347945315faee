"""Tiles put together as LLaVA-NeXT puts them together."""

from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel, get_anyres_image_grid_shape

from mmbridge.connectors.tiles import pack, packed_length
from mmbridge.encoders.base import Grid, Tiling

SIDE, PINPOINTS = 32, [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96], [96, 64]]
SIZES = [
    (30, 70),
    (64, 64),
    (100, 31),
    (33, 97),
    (480, 640),
    (641, 427),
    (1, 500),
    (500, 1),
    (7, 9),
    (47, 376),
    (88, 55),
]  # the last two differ if rounded down at once


@lru_cache(maxsize=1)
def reference() -> LlavaNextModel:
    tower: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision = CLIPVisionConfig(**tower, image_size=SIDE, patch_size=4)
    text = LlamaConfig(hidden_size=6, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=8)
    return LlavaNextModel(LlavaNextConfig(vision_config=vision, text_config=text, image_grid_pinpoints=PINPOINTS))


def packed(values: Tensor, size: tuple[int, int], newline: Tensor | None) -> tuple[Tensor, int]:
    pack_image_features: Any = reference().pack_image_features
    (theirs,), lengths = pack_image_features([values], torch.tensor([size]), "default", newline)
    return theirs, int(lengths)


def tiled(size: tuple[int, int]) -> Tiling:
    rows, columns = get_anyres_image_grid_shape(size, PINPOINTS, SIDE)  # type: ignore[no-untyped-call]
    return Tiling(rows, columns, *size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("with_newline", [True, False])
def test_equals_pack_image_features(size: tuple[int, int], with_newline: bool) -> None:
    """Values, lengths and gradients against transformers' LlavaNextModel.pack_image_features."""
    tiling, grid = tiled(size), Grid(1, 8, 8)
    values, newline = torch.randn(tiling.views, 64, 6).requires_grad_(), torch.randn(6).requires_grad_()
    ours, mask = pack(values, torch.ones(tiling.views, 64).bool(), grid, tiling, newline if with_newline else None)
    theirs, length = packed(values, size, newline if with_newline else None)
    assert torch.equal(ours, theirs)
    assert mask.all()
    assert packed_length(grid, tiling, with_newline) == length == len(ours)
    weights = torch.randn_like(ours)
    wanted = [values, newline] if with_newline else [values]
    for mine, other in zip(
        torch.autograd.grad((ours * weights).sum(), wanted),
        torch.autograd.grad((theirs * weights).sum(), wanted),
        strict=True,
    ):
        assert torch.allclose(mine, other, atol=1e-6)


def test_lengths_over_many_sizes() -> None:
    """The length known beforehand is the length found, for every size up to 60 pixels a side."""
    grid, values = Grid(1, 8, 8), torch.zeros(7, 64, 6)
    for height in range(1, 60, 4):
        for width in range(1, 60):
            tiling = tiled((height, width))
            _, length = packed(values[: tiling.views], (height, width), values[0, 0])
            assert packed_length(grid, tiling, newline=True) == length, (height, width)


def test_a_token_that_is_not_real_stays_so() -> None:
    tiling, grid = Tiling(1, 2, 32, 64), Grid(1, 2, 2)
    values = torch.arange(12.0).view(3, 4, 1)
    mask = values[..., 0] != 6
    out, real = pack(values, mask, grid, tiling, torch.tensor([-1.0]))
    assert out[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 8, 9, -1, 6, 7, 10, 11, -1]
    assert real.tolist() == [value != 6 for value in out[:, 0].tolist()]
