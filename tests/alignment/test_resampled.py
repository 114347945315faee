"""The jackknife's intervals: those of a mean in closed form, and no further than a score can go."""

import numpy as np
import pytest
import torch

from mmbridge.alignment.cka import cka
from mmbridge.alignment.resampled import without_some
from tests.alignment.clouds import points, rotation


def test_of_a_mean_it_is_the_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=50)
    found = without_some(lambda rows: float(values[rows].mean()), len(values), parts=len(values))
    error = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - error, values.mean() + error))


def test_no_interval_passes_what_a_score_can_reach() -> None:
    x = points(12, 6)
    y = x @ rotation(6) + 0.3 * points(12, 6, 1)

    def score(rows: list[int]) -> float:
        return cka(torch.as_tensor(x)[rows], torch.as_tensor(y)[rows])

    assert without_some(score, 12).high > 1
    found = without_some(score, 12, highest=1.0)
    assert found.low < found.value < found.high == 1
