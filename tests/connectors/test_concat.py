"""Concat-k and pixel shuffle."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector

from mmbridge.connectors.concat import Concat, PixelShuffle
from mmbridge.encoders.base import Grid
from mmbridge.errors import RecipeError
from tests.connectors.samples import facts, features


@pytest.mark.proof("concat", against="NumPy's reshape of (N, D) to (N/k, kD), as MiniGPT-v2 joins 4 neighbours")
@pytest.mark.parametrize("grid", [Grid(1, 3, 8), Grid(2, 2, 4)])
def test_rows(grid: Grid) -> None:
    seen = features(grid, grid)
    out = Concat((1, 1, 4))(seen)
    assert np.array_equal(out.values.numpy(), seen.values.numpy().reshape(2, grid.cells // 4, 4 * 6))
    assert out.mask.all()
    assert out.grids == (Grid(grid.time, grid.height, grid.width // 4),) * 2


def test_time() -> None:
    seen = features(Grid(6, 1, 1))
    out = Concat((3, 1, 1))(seen)
    assert np.array_equal(out.values.numpy(), seen.values.numpy().reshape(1, 2, 18))
    assert out.grids == (Grid(2, 1, 1),)


def test_what_ends_early_ends_in_zeros() -> None:
    seen = features(Grid(7, 1, 1), Grid(4, 1, 1))
    out = Concat((3, 1, 1))(seen)
    assert out.mask.tolist() == [[True, True, True], [True, True, False]]
    assert torch.equal(out.values[0, 2], torch.cat([seen.values[0, 6], torch.zeros(12)]))
    assert torch.equal(out.values[1, 1], torch.cat([seen.values[1, 3], torch.zeros(12)]))
    assert out.grids == (Grid(3, 1, 1), Grid(2, 1, 1))


def test_a_ragged_row_does_not_take_from_the_next() -> None:
    seen = features(Grid(1, 2, 3))
    out = Concat((1, 1, 2))(seen)
    assert torch.equal(out.values[0, 1], torch.cat([seen.values[0, 2], torch.zeros(6)]))
    assert torch.equal(out.values[0, 2], seen.values[0, 3:5].flatten())


def test_padding_inside_a_row_is_zeros() -> None:
    seen = features(Grid(1, 1, 4))
    mask = torch.tensor([[True, False, False, False]])
    out = Concat((1, 1, 2))(replace(seen, mask=mask))
    assert out.mask.tolist() == [[True, False]]
    assert torch.equal(out.values[0], torch.cat([seen.values[0, 0], torch.zeros(18)]).view(2, 12))


@pytest.mark.proof("pixel_shuffle", against="transformers' Idefics3Connector.pixel_shuffle, and NumPy off the square")
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_equals_idefics3(factor: int) -> None:
    seen = features(Grid(1, 8, 8), Grid(1, 8, 8))
    out = PixelShuffle((1, factor, factor), "resampler")(seen)
    shuffle: Any = Idefics3Connector.pixel_shuffle  # reads nothing of its connector
    reference = shuffle(None, seen.values, factor)
    assert torch.equal(out.values, reference)
    assert out.grids == (Grid(1, 8 // factor, 8 // factor),) * 2


def test_pixel_shuffle_off_the_square() -> None:
    seen = features(Grid(1, 4, 6))
    out = PixelShuffle((1, 2, 2), "resampler")(seen).values.numpy()[0].reshape(2, 3, 24)
    picture = seen.values.numpy()[0].reshape(4, 6, 6)
    for row in range(2):
        for column in range(3):
            square = picture[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert np.array_equal(out[row, column], square.reshape(-1))


def test_pixel_shuffle_takes_views_of_several_full_grids() -> None:
    out = PixelShuffle((1, 2, 2), "resampler")(features(Grid(1, 4, 4), Grid(1, 2, 2)))
    assert out.mask.sum(1).tolist() == [4, 1]


@pytest.mark.parametrize("grid", [Grid(1, 3, 4), Grid(1, 4, 3)])
def test_pixel_shuffle_refuses_a_ragged_grid(grid: Grid) -> None:
    with pytest.raises(RecipeError) as caught:
        PixelShuffle((1, 2, 2), "connectors.image.resampler")(features(grid))
    assert str(caught.value) == (
        "connectors.image.resampler: expected full grids, found a square of 2×2 tokens of which some are padding; "
        "use average_pool or concat, which take ragged grids"
    )


def test_pixel_shuffle_refuses_a_hole() -> None:
    seen = features(Grid(1, 4, 4))
    mask = seen.mask.clone()
    mask[0, 5] = False
    with pytest.raises(RecipeError, match="expected full grids"):
        PixelShuffle((1, 2, 2), "resampler")(replace(seen, mask=mask))


def test_facts_follow() -> None:
    assert Concat((1, 1, 4)).facts(facts(Grid(1, 8, 8))) == facts(Grid(1, 8, 2), width=24)
    assert PixelShuffle((1, 2, 2), "").facts(facts(Grid(1, 8, 8))) == facts(Grid(1, 4, 4), width=24)
    assert Concat((3, 1, 1)).grid(Grid(7, 1, 1)) == Grid(3, 1, 1)
