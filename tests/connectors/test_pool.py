"""Average pooling."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

from mmbridge.connectors.pool import AveragePool
from mmbridge.encoders.base import Features, Grid
from tests.connectors.samples import facts, features


@pytest.mark.proof("average_pool", against="torch.nn.functional.avg_pool2d, outputs and gradients")
@pytest.mark.parametrize(("factor", "sides"), [(2, (4, 6)), (3, (3, 9)), (1, (2, 5))])
def test_full_grids(factor: int, sides: tuple[int, int]) -> None:
    seen = features(Grid(1, *sides), Grid(1, *sides))
    values = seen.values.requires_grad_()
    out = AveragePool((1, factor, factor))(seen)
    picture = values.view(2, *sides, 6).permute(0, 3, 1, 2)
    reference = avg_pool2d(picture, factor)
    assert torch.allclose(out.values, reference.flatten(2).transpose(1, 2), atol=1e-6)
    assert torch.allclose(reference, adaptive_avg_pool2d(picture, (sides[0] // factor, sides[1] // factor)), atol=1e-6)
    ours = torch.autograd.grad(out.values.square().sum(), values)[0]
    assert torch.allclose(ours, torch.autograd.grad(reference.square().sum(), values)[0], atol=1e-6)


def test_each_frame_is_pooled_by_itself() -> None:
    seen = features(Grid(3, 4, 4))
    out = AveragePool((1, 2, 2))(seen)
    frames = seen.values.view(3, 4, 4, 6).permute(0, 3, 1, 2)
    reference = avg_pool2d(frames, 2).permute(0, 2, 3, 1).reshape(1, 12, 6)
    assert torch.allclose(out.values, reference, atol=1e-6)
    assert out.grids == (Grid(3, 2, 2),)


def test_a_side_that_does_not_divide_is_a_mean_of_what_is_there() -> None:
    seen = features(Grid(1, 5, 3))
    out = AveragePool((1, 2, 2))(seen)
    picture = seen.values.view(1, 5, 3, 6).permute(0, 3, 1, 2)
    reference = avg_pool2d(picture, 2, ceil_mode=True, count_include_pad=False).flatten(2).transpose(1, 2)
    assert torch.allclose(out.values, reference, atol=1e-6)
    assert out.grids == (Grid(1, 3, 2),)


def test_padded_tokens_count_for_nothing() -> None:
    seen = features(Grid(1, 2, 4))
    mask = torch.tensor([[True, False, False, False, True, True, False, False]])
    values = seen.values.masked_fill(~mask[..., None], float("nan")).requires_grad_()
    out = AveragePool((1, 2, 2))(replace(seen, values=values, mask=mask))
    assert torch.allclose(out.values[0, 0], values[0, [0, 4, 5]].mean(0))
    assert out.mask.tolist() == [[True, False]]
    gradient = torch.autograd.grad(out.values.sum(), values)[0]
    assert torch.equal(gradient[0, :, 0], torch.tensor([1 / 3, 0, 0, 0, 1 / 3, 1 / 3, 0, 0]))


def test_ragged_views_are_what_each_is_alone() -> None:
    grids = (Grid(1, 4, 4), Grid(1, 2, 6), Grid(1, 2, 2))
    seen = features(*grids)
    out = AveragePool((1, 2, 2))(seen)
    assert out.grids == (Grid(1, 2, 2), Grid(1, 1, 3), Grid(1, 1, 1))
    assert out.mask.sum(1).tolist() == [4, 3, 1]
    for row, grid in enumerate(grids):
        values: Tensor = seen.values[row : row + 1, : grid.cells]
        one = Features(values, seen.mask[row : row + 1, : grid.cells], (grid,), (None,))
        assert torch.equal(out.values[row, out.mask[row]], AveragePool((1, 2, 2))(one).values[0])


def test_facts_follow() -> None:
    pool = AveragePool((1, 2, 2))
    assert pool.facts(facts(Grid(1, 8, 4))) == facts(Grid(1, 4, 2))
    assert pool.grid(Grid(1, 5, 4)) == Grid(1, 3, 2)


def test_half_precision_stays_half() -> None:
    seen = features(Grid(1, 2, 2))
    out = AveragePool((1, 2, 2))(replace(seen, values=seen.values.bfloat16()))
    assert out.values.dtype is torch.bfloat16
