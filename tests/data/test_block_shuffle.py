"""Orders by blocks: every number once, few blocks open at a time, each row as likely anywhere in its window."""

import tracemalloc
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from mmbridge.data import shuffle
from mmbridge.data.block_shuffle import Blocks, BlockShuffle
from mmbridge.data.recent import Recent

SIZES = [5, 1, 8, 0, 3, 8, 8, 2, 13, 8, 1]


def blocks(sizes: list[int], window: int) -> Blocks:
    return Blocks(np.array(sizes), window)


def order_of(shuffled: BlockShuffle) -> list[int]:
    return [shuffled[place] for place in range(len(shuffled))]


@pytest.mark.parametrize("window", [1, 2, 3, 11, 64])
@pytest.mark.parametrize("whole", [shuffle.WHOLE, 0])
@pytest.mark.parametrize("sizes", [SIZES, [7], [0, 4], [1] * 20])
def test_every_number_stands_in_one_place(
    sizes: list[int], window: int, whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shuffle, "WHOLE", whole)
    order = BlockShuffle(blocks(sizes, window), [3, 1])
    assert sorted(order_of(order)) == list(range(sum(sizes)))
    for place in (-1, sum(sizes)):
        with pytest.raises(IndexError):
            order[place]


def opened(order: list[int], sizes: list[int], window: int) -> Counter[int]:
    """How often each block is opened by somebody who keeps ``window`` of them."""
    of = np.repeat(np.arange(len(sizes)), sizes)
    times, kept = Counter[int](), Recent[None](window)
    for number in order:
        block = int(of[number])
        kept.get(block, lambda block=block: times.update([block]))  # type: ignore[misc]
    return times


@pytest.mark.parametrize("window", [1, 2, 4, 16])
def test_a_block_is_opened_once_by_whoever_keeps_a_window(window: int) -> None:
    sizes = np.random.default_rng(0).integers(1, 40, 50).tolist()
    for key in range(5):
        order = order_of(BlockShuffle(blocks(sizes, window), [key]))
        assert opened(order, sizes, window) == dict.fromkeys(range(50), 1)
        anyhow = np.random.default_rng(key).permutation(order).tolist()
        assert opened(anyhow, sizes, window).total() > 10 * 50


def test_a_window_of_all_blocks_is_a_shuffle_of_everything() -> None:
    """Chi-square over the pairs of what stands in two places, by 20,000 keys."""
    orders = [BlockShuffle(blocks([3, 1, 4], 3), [key]) for key in range(20_000)]
    pairs = Counter((order[0], order[5]) for order in orders)
    assert len(pairs) == 8 * 7
    assert chisquare(list(pairs.values())).pvalue > 1e-3


def test_each_row_is_as_likely_anywhere_in_its_window_and_each_block_in_any_window() -> None:
    """Chi-square over where row 0 and row 9 land, and over which two blocks share the first window, by 20,000 keys."""
    keys, size = 20_000, 4
    orders = [order_of(BlockShuffle(blocks([size] * 6, 2), [key, 7])) for key in range(keys)]
    for row in (0, 9):
        places = Counter(order.index(row) for order in orders)
        assert len(places) == 6 * size
        assert chisquare(list(places.values())).pvalue > 1e-3
    first = Counter(frozenset(number // size for number in order[: 2 * size]) for order in orders)
    assert len(first) == 6 * 5 / 2
    assert chisquare(list(first.values())).pvalue > 1e-3


def test_the_order_follows_from_the_key_and_the_place_alone() -> None:
    straight, jumping = (BlockShuffle(blocks(SIZES, 3), [5, 6]) for _ in range(2))
    order = order_of(straight)
    places = np.random.default_rng(0).permutation(len(order))
    assert [jumping[int(place)] for place in places] == [order[place] for place in places]
    assert order_of(BlockShuffle(blocks(SIZES, 3), [5, 7])) != order


def test_the_order_of_this_version() -> None:
    """Runs are resumed and repeated by it: a change must be a decision."""
    assert order_of(BlockShuffle(blocks([3, 1, 4, 2], 2), [5, 6])) == [5, 6, 4, 3, 7, 2, 0, 9, 1, 8]


def test_ten_million_rows_in_ten_thousand_blocks_take_little_memory() -> None:
    tracemalloc.start()
    order = BlockShuffle(blocks([1000] * 10_000, 8), [0])
    found = {order[place] for place in range(5_000_000, 5_000_500)}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 500
    assert peak < 2e6
