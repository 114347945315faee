"""What scores put into a report: curves, of figures resampled or estimated depth by depth."""

from collections.abc import Iterable, Mapping, Sequence
from math import nan

import numpy as np

from mmbridge.alignment.lots import Resampled, estimates
from mmbridge.alignment.report import Curve, Histogram, Matrix, Scalar, View, Words
from mmbridge.evaluation.bootstrap import Estimate

Part = Curve | Scalar | Matrix | Histogram | Words | View
Of = tuple[str, str]
"""The names of a medium's perceptual tokens and of the text beside them."""


def resampled_curve(
    score: str,
    of: tuple[str, ...],
    depths: Iterable[int],
    found: Resampled,
    control: Resampled | None = None,
    chance: float | Sequence[float] | None = None,
) -> Curve:
    """Of the same resamples at every depth, so that the mean over depths has an interval of its own."""
    values, mean = estimates(found)
    beside, mean_beside = ((), None) if control is None else estimates(control)
    level = () if chance is None else tuple(chance) if isinstance(chance, Sequence) else (chance,) * len(values)
    return Curve(score, of, "block", tuple(depths), values, mean, beside, level, mean_beside)


def estimated_curve(
    score: str,
    of: tuple[str, ...],
    values: Mapping[int, Estimate],
    control: Sequence[Estimate] = (),
    chance: float | None = None,
) -> Curve:
    """Of an estimate at each depth. How they vary together is not known: the ends of the mean are the means of ends. It
    is over the depths at which there is a value."""
    ends = np.array([[each.value, each.low, each.high] for each in values.values()])
    known = ends[np.isfinite(ends[:, 0])]
    mean = Estimate(*map(float, known.mean(axis=0))) if len(known) else Estimate(nan, nan, nan)
    level = () if chance is None else (chance,) * len(values)
    return Curve(score, of, "block", tuple(values), tuple(values.values()), mean, tuple(control), level)
