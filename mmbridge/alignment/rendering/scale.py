"""From values to places on a drawing."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

_LEAST = 1e-300
"""Smaller numbers are not told from 0."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Linear: ``low`` lies at ``start`` and ``high`` at ``end``; ``step`` is from tick to tick."""

    low: float
    high: float
    start: float
    end: float
    step: float

    @classmethod
    def over(cls, values: Iterable[float], start: float, end: float, *, rounded: bool = False) -> "Scale":
        """From the least to the largest finite value, or ``rounded`` outwards to ticks; from 0 to 1 if there is none.

        A single value stands in the middle; so do values that are one but for rounding.
        """
        finite = [value for value in values if isfinite(value)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        largest = max(abs(low), abs(high))
        if high - low <= max(1e-12 * largest, _LEAST):
            margin = largest / 2 if largest > _LEAST else 0.5
            low, high = low - margin, high + margin
        step = _step((high - low) / 5)
        if rounded:
            low, high = floor(low / step + 1e-9) * step, ceil(high / step - 1e-9) * step
        return cls(low, high, start, end, step)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, *, whole: bool = False) -> list[float]:
        """Multiples of the step, or only those that are ``whole`` numbers."""
        step = max(1.0, self.step) if whole else self.step
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        return [float(f"{count * step:.12g}") for count in range(first, last + 1)]


def _step(least: float) -> float:
    """The next of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** floor(log10(least))
    return next(times * power for times in (1.0, 2.0, 5.0, 10.0) if times * power >= least * (1 - 1e-9))
