"""The order of a mixture: shares, epochs, and dependence on nothing but seed and number."""

from collections import Counter

import numpy as np
import pytest

from mmbridge.data.mixture import Mixture
from mmbridge.data.record import Record
from mmbridge.data.sample import Sample
from mmbridge.data.sources import RecordSource
from mmbridge.errors import DataError


def source(name: str, length: int) -> RecordSource:
    records = [Record(f"{name}{index}", text="a") for index in range(length)]
    return RecordSource(records, "caption", name=name)


def mixture(seed: int = 0, **lengths: int) -> Mixture:
    return Mixture([source(name, length) for name, length in lengths.items()], [1.0] * len(lengths), seed)


def test_an_epoch_of_one_source_is_every_sample_once_in_a_new_order() -> None:
    mix = mixture(a=50)
    epochs = [[mix.locate(50 * epoch + place)[1] for place in range(50)] for epoch in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(50))] * 3
    assert epochs[0] != epochs[1] != epochs[2] != list(range(50))
    assert len(mix) == 50


def test_shares_follow_the_weights_in_every_epoch() -> None:
    mix = Mixture([source("a", 700), source("b", 200), source("c", 100)], [1, 2, 1], 0)
    for epoch in range(3):
        drawn = Counter(mix.locate(1000 * epoch + place)[0] for place in range(1000))
        assert drawn == {0: 250, 1: 500, 2: 250}


def test_sources_are_spread_over_an_epoch() -> None:
    mix = mixture(a=500, b=500)
    first = [mix.locate(place)[0] for place in range(500)]
    assert 200 < sum(first) < 300


@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 0.7)])
def test_each_source_is_gone_through_without_repeats_before_it_begins_again(weights: tuple[float, float]) -> None:
    mix = Mixture([source("a", 30), source("b", 11)], weights, 5)
    drawn: dict[int, list[int]] = {0: [], 1: []}
    for draw in range(41 * 6):
        which, index = mix.locate(draw)
        drawn[which].append(index)
    for which, size in ((0, 30), (1, 11)):
        rounds = [drawn[which][start : start + size] for start in range(0, len(drawn[which]) - size, size)]
        assert len(rounds) > 2
        assert all(sorted(each) == list(range(size)) for each in rounds)


def test_the_order_is_a_pure_function_of_seed_and_draw() -> None:
    straight, jumping, other = mixture(3, a=40, b=25), mixture(3, a=40, b=25), mixture(4, a=40, b=25)
    order = [straight.locate(draw) for draw in range(300)]
    shuffled = np.random.default_rng(0).permutation(300)
    assert [jumping.locate(int(draw)) for draw in shuffled] == [order[draw] for draw in shuffled]
    assert [other.locate(draw) for draw in range(300)] != order


def test_the_order_of_this_version() -> None:
    """Runs are resumed and repeated by it: a change must be a decision."""
    assert [mixture(7, a=6, b=3).locate(draw) for draw in (0, 1, 2, 8, 9, 1000)] == [
        (1, 2), (0, 3), (1, 1), (1, 2), (0, 5), (1, 2),
    ]  # fmt: skip


def test_a_draw_is_a_sample_of_its_source() -> None:
    mix = mixture(a=4, b=4)
    found: Sample = mix[13]
    which, index = mix.locate(13)
    assert found.id == f"{'ab'[which]}{index}"


def test_a_share_of_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match=r"^b: expected a share of at least one sample an epoch; raise its weight"):
        Mixture([source("a", 10), source("b", 10)], [1.0, 0.01], 0)
