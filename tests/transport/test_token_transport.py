"""Transport between tokens and words against NumPy and POT, pair by pair."""

import numpy as np
import ot
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmbridge.transport.plan import Transport
from mmbridge.transport.sinkhorn import sinkhorn
from mmbridge.transport.token_transport import Planner, token_transport, uniter
from tests.transport.clouds import points
from tests.transport.test_ipot import looped

SIZES = [(6, 4), (2, 5), (1, 1)]
M, L, D = 6, 5, 8


def entropic(cost: Tensor, rows: Tensor, columns: Tensor) -> Transport:
    return sinkhorn(cost, 0.05, rows, columns, tolerance=1e-6)


def padded() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A batch with NaN wherever nothing is."""
    tokens, words = points(M, D, 1, (3,)), points(L, D, 2, (3,))
    masks = [torch.arange(most) < torch.tensor([[size[side]] for size in SIZES]) for side, most in ((0, M), (1, L))]
    tokens[~masks[0]], words[~masks[1]] = torch.nan, torch.nan
    return tokens, masks[0], words, masks[1]


@pytest.mark.parametrize("planner", [uniter, entropic])
def test_equals_a_loop_and_pot(planner: Planner) -> None:
    tokens, mask, words, words_mask = padded()
    tokens.requires_grad_()
    found = token_transport(tokens, mask, words, words_mask, planner)
    found.distances.sum().backward()  # type: ignore[no-untyped-call]
    assert tokens.grad is not None
    for i, (n, m) in enumerate(SIZES):
        x, y = tokens.detach()[i, :n].numpy(), words[i, :m].numpy()
        cost = ot.dist(x, y, metric="cosine")
        if planner is uniter:
            plan = looped(cost, 0.5, 50)
        else:
            plan = ot.bregman.sinkhorn_log([], [], cost, 0.05, numItermax=20_000, stopThr=1e-10)
        assert float(found.distances[i].detach()) == pytest.approx((plan * cost).sum(), abs=2e-6)
        assert_close(found.plan[i, :n, :m].double().numpy(), plan, atol=2e-6, rtol=0)
        unit, other = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (x, y))
        drawn = plan @ other
        gradient = -(drawn - (drawn * unit).sum(1, keepdims=True) * unit) / np.linalg.norm(x, axis=1, keepdims=True)
        assert_close(tokens.grad[i, :n].numpy(), gradient, atol=1e-6, rtol=1e-5)
        assert found.plan[i, n:].abs().sum() == found.plan[i, :, m:].abs().sum() == 0
        assert tokens.grad[i, n:].abs().sum() == 0


def test_entropic_distance_is_not_below_exact_transport() -> None:
    tokens, mask, words, words_mask = padded()
    found = token_transport(tokens, mask, words, words_mask, entropic)
    for i, (n, m) in enumerate(SIZES):
        cost = ot.dist(tokens[i, :n].numpy(), words[i, :m].numpy(), metric="cosine")
        exact = ot.emd2([], [], cost)
        assert exact - 1e-6 <= float(found.distances[i]) <= exact + 0.05 * np.log(n * m)


def test_a_pair_without_words_costs_nothing() -> None:
    tokens, words = points(3, D, 1, (2,)).float().requires_grad_(), points(4, D, 2, (2,)).bfloat16()
    mask = torch.tensor([[True, True, False, False], [False] * 4])
    found = token_transport(tokens, torch.ones(2, 3, dtype=torch.bool), words, mask)
    found.distances.sum().backward()  # type: ignore[no-untyped-call]
    assert found.distances[1] == found.residual[1] == 0
    assert tokens.grad is not None
    assert tokens.grad[1].abs().sum() == 0 < tokens.grad[0].abs().sum()
    assert found.distances.dtype == torch.float32
