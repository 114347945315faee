"""Scores with their intervals, side by side, as a plot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

Span = tuple[float, float, float]
"""(value, low, high)."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One score: ``spans`` by group, such as an amount of data, and by row; ``chance`` is what guessing scores."""

    title: str
    spans: Mapping[str, Mapping[str, Span]]
    chance: float | None = None


def plot(panels: Sequence[Panel], path: Path) -> None:
    """A panel beside the other, the same rows in each, a colour for each group."""
    matplotlib.rcParams |= {"svg.hashsalt": "mmbridge", "svg.fonttype": "none", "font.size": 8}
    rows = [*next(iter(panels[0].spans.values()))]
    figure = Figure(figsize=(3.4 * len(panels) + 1, 0.42 * len(rows) + 1.2), layout="constrained")
    for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False, sharey=True)[0], panels, strict=True):
        for number, (group, spans) in enumerate(panel.spans.items()):
            height = 0.16 * (number - (len(panel.spans) - 1) / 2)
            values = [spans[row][0] for row in rows]
            reach = [[value - spans[row][1] for row, value in zip(rows, values, strict=True)]]
            reach.append([spans[row][2] - value for row, value in zip(rows, values, strict=True)])
            places = [place + height for place in range(len(rows))]
            axis.errorbar(values, places, xerr=reach, fmt="o", markersize=4, capsize=2, label=group)
        if panel.chance is not None:
            axis.axvline(panel.chance, color="grey", linestyle=":", label="chance")
        axis.set(title=panel.title, xlim=(-0.02, 1.02), yticks=range(len(rows)))
        axis.set_yticklabels(rows)
        axis.grid(alpha=0.3, axis="x")
    figure.axes[0].invert_yaxis()
    figure.legend(*figure.axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
