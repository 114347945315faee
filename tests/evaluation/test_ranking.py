"""Ranks, recall and chance against a loop in NumPy, against scikit-learn, and against every order there is."""

from itertools import permutations
from math import comb

import numpy as np
import pytest
import torch
from sklearn.metrics import coverage_error, top_k_accuracy_score
from torch import Tensor

from mmbridge.evaluation import ranking as module
from mmbridge.evaluation.ranking import chance_median, chance_recall, ranking


def drawn(queries: int, candidates: int, *, seed: int, levels: int | None = None) -> tuple[Tensor, Tensor]:
    """Similarities, of few levels and so with ties where asked for, and pairs of one to three right candidates each."""
    random = np.random.default_rng(seed)
    near = (
        random.random((queries, candidates)) if levels is None else random.integers(levels, size=(queries, candidates))
    )
    pairs = [
        (query, candidate)
        for query in range(queries)
        for candidate in random.choice(candidates, random.integers(1, 4), replace=False)
    ]
    return torch.tensor(near, dtype=torch.float32), torch.tensor(pairs)


def by_loop(near: np.ndarray, pairs: np.ndarray) -> list[int]:
    ranks = []
    for query, row in enumerate(near):
        right = {candidate for asked, candidate in pairs if asked == query}
        best = max(row[candidate] for candidate in right)
        ranks.append(1 + sum(row[each] >= best for each in range(len(row)) if each not in right))
    return ranks


@pytest.mark.parametrize("levels", [None, 2, 5])
@pytest.mark.parametrize("at_once", [1, 40, 2**24])
def test_ranks_are_those_of_a_loop(levels: int | None, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stretches of queries they are found in."""
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    near, pairs = drawn(30, 20, seed=1, levels=levels)
    stretches = list[int]()

    def strip(part: slice) -> Tensor:
        stretches.append(part.stop - part.start)
        return near[part]

    found = ranking(strip, pairs, (30, 20))
    assert found.ranks.tolist() == by_loop(near.numpy(), pairs.numpy())
    assert max(stretches) == min(30, max(1, at_once // 20))
    if levels is None:
        assert found.nearest.tolist() == near.numpy().argmax(axis=1).tolist()


def test_recall_is_scikit_learns_accuracy_at_k() -> None:
    near = torch.rand(50, 12, generator=torch.Generator().manual_seed(0))
    right = torch.arange(50) % 12
    found = ranking(lambda part: near[part], torch.stack([torch.arange(50), right], 1), (50, 12))
    for k in (1, 5, 10):
        expected = top_k_accuracy_score(right.numpy(), near.numpy(), k=k, labels=range(12))
        assert (found.ranks <= k).mean() == pytest.approx(expected)


@pytest.mark.parametrize("levels", [1, 3, 8])
def test_among_equals_wrong_ones_stand_first_as_in_scikit_learns_coverage(levels: int) -> None:
    near = torch.randint(levels, (40, 9), generator=torch.Generator().manual_seed(2)).float()
    right = torch.arange(40) % 9
    found = ranking(lambda part: near[part], torch.stack([torch.arange(40), right], 1), (40, 9))
    truth = np.eye(9, dtype=int)[right.numpy()]
    assert found.ranks.mean() == pytest.approx(coverage_error(truth, near.numpy()))


def test_what_is_not_a_number_finds_nothing() -> None:
    near = torch.full((3, 7), torch.nan)
    assert ranking(lambda part: near[part], torch.tensor([[0, 0], [1, 1], [2, 6]]), (3, 7)).ranks.tolist() == [7] * 3


def test_chance_is_the_mean_over_all_orders() -> None:
    """Six candidates, of which one, two and four are right for three queries."""
    right, candidates = np.array([1, 2, 4]), 6
    ranks = [
        [min(order.index(each) for each in range(many)) + 1 for order in permutations(range(candidates))]
        for many in right
    ]
    for k in (1, 2, 3, 6, 10):
        expected = np.mean([[rank <= k for rank in row] for row in ranks])
        assert chance_recall(right, candidates, k) == pytest.approx(expected)
    assert chance_median(right, candidates) == np.median(ranks)


@pytest.mark.parametrize(("right", "candidates"), [([1], 9), ([1], 10), ([1, 1, 1], 1), ([2, 2], 7), ([3, 1], 40)])
def test_the_median_by_chance_is_that_of_all_orders(right: list[int], candidates: int) -> None:
    """How often a rank occurs is counted in whole numbers here: C(P - rank, r - 1)."""
    scale = {many: comb(candidates, many) for many in right}
    whole = np.lcm.reduce(list(scale.values()))
    ranks = np.arange(1, candidates + 1)
    often = sum(
        np.array([comb(candidates - rank, many - 1) for rank in ranks]) * (whole // scale[many]) for many in right
    )
    assert chance_median(np.array(right), candidates) == np.median(np.repeat(ranks, often))
