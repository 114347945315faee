"""What an evaluation run found: scores with intervals, every raw answer, and what it cost."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmbridge.evaluation.bootstrap import Estimate
from mmbridge.whole_file import write_whole

_BOUNDED = ("accuracy", "exact", "f1", "fact", "precision", "recall")
"""Beginnings of the names of scores that a part's ceiling limits; CIDEr, BLEU, CHAIR and rates are on other scales."""

_OVERALL = "text_vqa"
"""The LLM's accuracy over all kinds of text-only questions; probes have no such figure."""


@dataclass(frozen=True, slots=True)
class Row:
    """One answered sample: what was said, what is true, and the kind of question where one is known.

    ``more`` is what else its line in ``write_rows`` says.
    """

    id: str
    prediction: str
    truth: Mapping[str, Any]
    kind: str | None = None
    perceptual_tokens: int = 0
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """One sample that could not be answered, and the one line that says why."""

    id: str
    error: str


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of ``evaluate``.

    ``metrics`` by name; ``rows`` in the source's order; ``failed`` samples, which are in no score; ``seconds`` spent
    on the samples; ``flops`` executed for all rows, with ``flops_note`` on how they were found, or ``None`` and why
    they are unknown; ``ceilings`` by ``part.probe``: what the frozen parts reach alone; ``chance`` by metric: what
    guessing reaches; ``about``: what else there is to know of the scores.
    """

    task: str
    metrics: Mapping[str, Estimate]
    rows: tuple[Row, ...]
    failed: tuple[Failure, ...]
    seconds: float
    flops: int | None
    flops_note: str
    ceilings: Mapping[str, float] = field(default_factory=dict)
    chance: Mapping[str, float] = field(default_factory=dict)
    about: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Samples that were answered and scored."""
        return len(self.rows)

    @property
    def perceptual_tokens(self) -> float:
        """Perceptual tokens of a sample, on average."""
        return sum(row.perceptual_tokens for row in self.rows) / max(1, self.n)

    def to_dict(self) -> dict[str, Any]:
        """What ``eval --json`` writes: ``metrics`` are plain numbers, their intervals stand beside them."""
        return {
            "task": self.task,
            "n": self.n,
            "metrics": {name: score.value for name, score in self.metrics.items()},
            "intervals": {name: [score.low, score.high] for name, score in self.metrics.items()},
            "flops": self.flops,
            "flops_note": self.flops_note,
            "seconds": self.seconds,
            "perceptual_tokens": self.perceptual_tokens,
            "ceilings": dict(self.ceilings),
            "chance": dict(self.chance),
            "about": dict(self.about),
            "failed": [{"id": failure.id, "error": failure.error} for failure in self.failed],
        }

    def to_json(self) -> str:
        """``to_dict`` as one line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def write_rows(self, path: Path) -> None:
        """Every raw answer as JSON lines: id, prediction, truth, kind, and what more is known of it."""
        told = [
            {"id": row.id, "prediction": row.prediction, "truth": dict(row.truth), "kind": row.kind, **row.more}
            for row in self.rows
        ]
        write_whole(path, "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in told))

    def render(self) -> str:
        """The scores as a table of plain text, beside each its chance and the ceilings of the frozen parts, then what
        failed."""
        parts = list(dict.fromkeys(key.split(".")[0] for key in self.ceilings))
        width = max(map(len, self.metrics), default=0) + 2
        limiting = [part for part in parts if any(self._ceiling(part, name) is not None for name in self.metrics)]
        header = f"{self.task}: {self.n} samples, {self.seconds:.1f} s"
        lines = [header + "".join(f"  (≤ {part}: its ceiling)" for part in limiting)]
        lines += [f"  {name}: {told}" for name, told in self.about.items()]
        for name, score in self.metrics.items():
            guessed = f"  chance {self.chance[name]:.3f}" if name in self.chance else ""
            limits = (f"  ≤ {part} {limit:.3f}" for part in parts if (limit := self._ceiling(part, name)) is not None)
            lines.append(f"  {name:<{width}}{score}{guessed}{''.join(limits)}")
        lines += [f"  failed: {failure.id}: {failure.error}" for failure in self.failed]
        return "\n".join(lines)

    def _ceiling(self, part: str, name: str) -> float | None:
        """The part's own figure for this kind of question where it has one, else its overall one, else its lowest."""
        if not name.startswith(_BOUNDED):
            return None
        figures = {key.partition(".")[2]: value for key, value in self.ceilings.items() if key.split(".")[0] == part}
        if self.task == "caption" and _OVERALL in figures:
            return None  # answers to questions do not limit captions
        return figures.get(name.partition("/")[2], figures.get(_OVERALL, min(figures.values())))
