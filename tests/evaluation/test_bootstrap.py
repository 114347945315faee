"""The bootstrap against scipy's, and against what an interval promises."""

import numpy as np
import pytest
from scipy import stats

from mmbridge.evaluation.bootstrap import Estimate, estimate, mean, median, ratio


def test_interval_of_a_mean_is_scipys() -> None:
    values = np.random.default_rng(0).random(200)
    ours = estimate(np.stack([values, np.ones(200)], axis=1), ratio(0, 1), resamples=20_000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=2e-3)
    assert ours.high == pytest.approx(theirs.high, abs=2e-3)


def test_interval_of_a_ratio_of_sums_is_scipys() -> None:
    random = np.random.default_rng(0)
    below = random.integers(1, 9, 150).astype(float)
    above = random.binomial(below.astype(int), 0.7).astype(float)

    def pooled(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(a.sum(axis=axis) / b.sum(axis=axis))

    theirs = stats.bootstrap(
        (above, below), pooled, paired=True, vectorized=True, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    ours = estimate(np.stack([above, below], axis=1), ratio(0, 1), resamples=20_000)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=3e-3)


def test_interval_holds_the_truth_about_95_times_in_100() -> None:
    random = np.random.default_rng(0)
    samples = (mean((random.random(200) < 0.3).astype(float)) for _ in range(200))
    held = np.mean([found.contains(0.3) for found in samples])
    assert 0.91 <= held <= 0.985


def test_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(0).random(50).tolist()
    assert mean(values) == mean(values)
    assert mean(values) != mean(values, seed=1)


def test_resampling_in_blocks_is_resampling_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(100).tolist()
    whole = mean(values)
    middle = median(values)
    monkeypatch.setattr("mmbridge.evaluation.bootstrap._AT_ONCE", 1)
    assert mean(values) == whole
    assert median(values) == middle


@pytest.mark.parametrize("count", [101, 150])
def test_interval_of_a_median_is_scipys(count: int) -> None:
    values = np.random.default_rng(0).exponential(size=count)
    ours = median(values, resamples=20_000)
    theirs = stats.bootstrap((values,), np.median, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert ours.value == np.median(values)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=2e-2)


def test_owners_are_drawn_with_all_their_items() -> None:
    """As scipy does it for owners whose statistics are the sums over their items; and a median by loop."""
    random = np.random.default_rng(0)
    owners = random.choice([3, 5, 8, 13, 21, 34, 55, 89], size=60)
    values = random.integers(20, size=60) + owners
    names = np.unique(owners)
    sums = np.array([[values[owners == each].sum(), (owners == each).sum()] for each in names])
    assert mean(values, owners) == estimate(sums, ratio(0, 1))
    drawn = np.random.default_rng(0).integers(len(names), size=(500, len(names)))
    medians = [np.median(np.concatenate([values[owners == names[each]] for each in row])) for row in drawn]
    found = median(values, owners, resamples=500)
    assert found == Estimate(np.median(values), *np.percentile(medians, [2.5, 97.5]))


def test_nothing_by_nothing_is_zero() -> None:
    assert estimate([[0, 0], [0, 0]], ratio(0, 1)) == Estimate(0.0, 0.0, 0.0)


def test_above_and_contains_are_about_the_interval() -> None:
    found = Estimate(0.5, 0.4, 0.6)
    assert found.contains(0.45)
    assert not found.contains(0.61)
    assert found.above(0.39)
    assert not found.above(0.45)
