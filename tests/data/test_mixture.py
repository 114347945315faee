"""The order of a mixture: shares, epochs, and dependence on nothing but seed and number."""

import tracemalloc
from collections import Counter

import numpy as np
import pytest

from mmbridge.data import mixture as mixtures
from mmbridge.data import shuffle as shuffles
from mmbridge.data.mixture import Mixture
from mmbridge.data.record import Record
from mmbridge.data.sample import Sample
from mmbridge.data.sources import RecordSource
from mmbridge.errors import DataError


@pytest.fixture(params=["whole", "in parts"])
def whole(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Every property holds whether an epoch is small enough to be shuffled in memory or not."""
    if request.param == "in parts":
        for module in (shuffles, mixtures):
            monkeypatch.setattr(module, "WHOLE", 16)
    return bool(request.param == "whole")


def source(name: str, length: int) -> RecordSource:
    records = [Record(f"{name}{index}", text="a") for index in range(length)]
    return RecordSource(records, "caption", name=name)


def mixture(seed: int = 0, **lengths: int) -> Mixture:
    return Mixture([source(name, length) for name, length in lengths.items()], [1.0] * len(lengths), seed)


@pytest.mark.usefixtures("whole")
def test_an_epoch_of_one_source_is_every_sample_once_in_a_new_order() -> None:
    mix = mixture(a=50)
    epochs = [[mix.locate(50 * epoch + place)[1] for place in range(50)] for epoch in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(50))] * 3
    assert epochs[0] != epochs[1] != epochs[2] != list(range(50))
    assert len(mix) == 50


@pytest.mark.usefixtures("whole")
def test_shares_follow_the_weights_in_every_epoch() -> None:
    mix = Mixture([source("a", 700), source("b", 200), source("c", 100)], [1, 2, 1], 0)
    for epoch in range(3):
        drawn = Counter(mix.locate(1000 * epoch + place)[0] for place in range(1000))
        assert drawn == {0: 250, 1: 500, 2: 250}


@pytest.mark.usefixtures("whole")
def test_sources_are_spread_over_an_epoch() -> None:
    mix = mixture(a=500, b=500)
    first = [mix.locate(place)[0] for place in range(500)]
    assert 200 < sum(first) < 300


@pytest.mark.usefixtures("whole")
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


@pytest.mark.usefixtures("whole")
def test_the_order_is_a_pure_function_of_seed_and_draw() -> None:
    straight, jumping, other = mixture(3, a=40, b=25), mixture(3, a=40, b=25), mixture(4, a=40, b=25)
    order = [straight.locate(draw) for draw in range(300)]
    shuffled = np.random.default_rng(0).permutation(300)
    assert [jumping.locate(int(draw)) for draw in shuffled] == [order[draw] for draw in shuffled]
    assert [other.locate(draw) for draw in range(300)] != order


def test_the_order_of_this_version(whole: bool) -> None:
    """Runs are resumed and repeated by it: a change must be a decision."""
    small = [(1, 2), (0, 3), (1, 1), (1, 2), (0, 5), (1, 2)]
    assert [mixture(7, a=6, b=3).locate(draw) for draw in (0, 1, 2, 8, 9, 1000)] == small
    large = [(1, 21), (0, 12), (0, 30), (0, 33), (0, 37), (1, 22)]
    parts = [(0, 51), (1, 1), (0, 47), (0, 44), (1, 4), (1, 8)]
    assert [mixture(7, a=60, b=30).locate(draw) for draw in (0, 1, 2, 89, 90, 1000)] == (large if whole else parts)


def test_parts_hold_as_many_of_a_source_as_chance_would_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean and variance of the hypergeometric distribution, at every part, over 2000 seeds."""
    monkeypatch.setattr(mixtures, "WHOLE", 16)
    mixes = [Mixture([source("a", 40), source("b", 24)], [40, 24], seed) for seed in range(2000)]
    held = [[sum(mix.locate(16 * part + place)[0] for place in range(16)) for part in range(4)] for mix in mixes]
    assert [sum(each) for each in held] == [24] * 2000
    assert np.mean(held, axis=0) == pytest.approx([16 * 24 / 64] * 4, rel=0.03)
    assert np.var(held, axis=0) == pytest.approx([16 * 24 / 64 * 40 / 64 * 48 / 63] * 4, rel=0.15)


def test_many_samples_take_no_more_memory_and_time_than_some() -> None:
    """Ten million samples of three sources, by numbers alone: what is made for a draw far out is small."""

    class Imagined:
        name = "imagined"

        def __init__(self, length: int) -> None:
            self.length = length

        def __len__(self) -> int:
            return self.length

        def __getitem__(self, index: int, /) -> Sample:
            raise NotImplementedError

    tracemalloc.start()
    mix = Mixture([Imagined(length) for length in (6_000_000, 3_000_000, 1_000_000)], [1, 1, 1], 0)
    first = [mix.locate(draw) for draw in range(5_000_000, 5_000_100)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 25e6
    assert len(set(first)) == 100
    assert {which for which, _ in first} == {0, 1, 2}


def test_more_samples_than_can_be_dealt_out() -> None:
    class Endless(RecordSource):
        def __len__(self) -> int:
            return 10**9

    endless = Endless([Record("r", text="a")], "caption")
    assert Mixture([endless], [1], 0).locate(10**9 - 1)[0] == 0
    with pytest.raises(DataError, match=r"^mix: expected fewer than 1,000,000,000 samples, found 2,000,000,000"):
        Mixture([endless, endless], [1, 1], 0)


def test_a_draw_is_a_sample_of_its_source() -> None:
    mix = mixture(a=4, b=4)
    found: Sample = mix[13]
    which, index = mix.locate(13)
    assert found.id == f"{'ab'[which]}{index}"


def test_a_share_of_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match=r"^b: expected a share of at least one sample an epoch; raise its weight"):
        Mixture([source("a", 10), source("b", 10)], [1.0, 0.01], 0)
