"""Costs against size: how they grow, and a plot of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullFormatter

SECONDS, BYTES = ", s", ", bytes"
"""How the names of costs end."""
STEEP = 1.15
"""An exponent above this is more than linear growth with noise."""
_FLOOR = {SECONDS: 1e-6, BYTES: 2**16}
"""Less cannot be told from nothing."""
_DECADES = 100.0
"""From the lower to the upper end of an axis, at least."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Costs by name, each at every size; ``of`` is what there are so many of."""

    of: str
    sizes: Sequence[int]
    costs: Mapping[str, Sequence[float]]

    @classmethod
    def through(cls, of: str, points: Mapping[int, Mapping[str, float]]) -> "Curve":
        """The costs found at each size."""
        names = next(iter(points.values()))
        return cls(of, list(points), {name: [point[name] for point in points.values()] for name in names})

    def exponents(self) -> dict[str, float]:
        """Slopes on logarithmic axes, over the upper half of the sizes: 0 is flat and 1 is linear growth."""
        return {name: self._exponent(name) for name in self.costs if _unit(name)}

    def _exponent(self, name: str) -> float:
        upper = (len(self.sizes) - 1) // 2
        values = np.maximum(self.costs[name], _FLOOR[_unit(name)])
        return float(np.polyfit(np.log(self.sizes[upper:]), np.log(values[upper:]), 1)[0])

    @classmethod
    def of_figures(cls, figures: Mapping[str, Any]) -> "Curve":
        """Read back."""
        costs = {name: each for name, each in figures.items() if name not in ("of", "sizes", "exponents")}
        return cls(figures["of"], figures["sizes"], costs)

    def figures(self) -> dict[str, Any]:
        """As they are written down."""
        return {"of": self.of, "sizes": list(self.sizes), **self.costs, "exponents": self.exponents()}

    def lines(self) -> list[str]:
        """For people: each cost at the smallest and at the largest size, and how it grows between."""
        rows = []
        for name, exponent in self.exponents().items():
            first, last = self.costs[name][0], self.costs[name][-1]
            flag = "   MORE THAN LINEAR" if exponent > STEEP else ""
            rows.append(f"{name:<40}{first:>12.3g} … {last:<12.3g}∝ {self.of}^{exponent:.2f}{flag}")
        return rows


def plot(curves: Mapping[str, Curve], path: Path) -> None:
    """Seconds above and memory below, a column for each curve, on logarithmic axes."""
    matplotlib.rcParams |= {"svg.hashsalt": "mmbridge", "svg.fonttype": "none", "font.size": 8}
    figure = Figure(figsize=(3.2 * len(curves), 6), layout="constrained")
    axes = figure.subplots(2, len(curves), squeeze=False)
    for column, (title, curve) in zip(axes.T, curves.items(), strict=True):
        for axis, unit, scale, label in zip(column, (SECONDS, BYTES), (1, 2**20), ("CPU seconds", "MiB"), strict=True):
            for name, exponent in curve.exponents().items():
                if _unit(name) == unit:
                    values = np.maximum(curve.costs[name], _FLOOR[unit]) / scale
                    axis.loglog(curve.sizes, values, "o-", label=f"{name.removesuffix(unit)} ∝ n^{exponent:.2f}")
            axis.set(xlabel=curve.of, ylabel=label, xticks=curve.sizes)
            axis.xaxis.set_major_formatter(EngFormatter(sep=""))
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.grid(alpha=0.3)
            low, high = axis.get_ylim()
            if high < _DECADES * low:  # else flat curves look steep
                axis.set_ylim(low / (_DECADES * low / high) ** 0.5, high * (_DECADES * low / high) ** 0.5)
            if axis.lines:
                axis.set_ylim(top=axis.get_ylim()[1] * 10)  # room for the legend
                axis.legend(fontsize=7, loc="upper left")
        column[0].set_title(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def _unit(name: str) -> str:
    """What a cost is counted in; nothing, if it is no cost."""
    return next((unit for unit in _FLOOR if name.endswith(unit)), "")
