"""Random orders: every number once, each as likely anywhere, by tables or worked out."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from mmbridge.data import shuffle
from mmbridge.data.shuffle import WHOLE, Shuffle


@pytest.mark.parametrize("length", [1, 2, 3, 16, 17, 20, 99, 100, 101, 5000])
@pytest.mark.parametrize("whole", [WHOLE, 0])
def test_every_number_stands_in_one_place(length: int, whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffle, "WHOLE", whole)
    order = Shuffle(length, [3, 1, 4])
    assert sorted(order[place] for place in range(length)) == list(range(length))
    assert len(order) == length
    for place in (-1, length):
        with pytest.raises(IndexError):
            order[place]


def test_small_orders_are_numpys() -> None:
    order = Shuffle(1000, [5, 6])
    assert [order[place] for place in range(1000)] == np.random.default_rng([5, 6]).permutation(1000).tolist()


def test_one_more_than_is_shuffled_whole() -> None:
    order = Shuffle(WHOLE + 1, [0])
    numbers = np.fromiter((order[place] for place in range(len(order))), np.int64)
    assert np.array_equal(np.sort(numbers), np.arange(len(order)))
    assert abs(np.corrcoef(numbers, np.arange(len(order)))[0, 1]) < 0.005
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.005


@pytest.mark.parametrize("whole", [WHOLE, 0])
def test_pairs_of_neighbours_are_equally_likely(whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chi-square over the 20 · 19 pairs of two places, side by side and far apart, by 40,000 keys."""
    monkeypatch.setattr(shuffle, "WHOLE", whole)
    orders = [Shuffle(20, [key]) for key in range(40_000)]
    for one, other in ((0, 1), (3, 9)):
        pairs = Counter((order[one], order[other]) for order in orders)
        assert len(pairs) == 20 * 19
        assert chisquare(list(pairs.values())).pvalue > 1e-3
