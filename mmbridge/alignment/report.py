"""What a measurement of alignment found, each figure beside its definition, its chance and its control.

A figure is *of* one or two groups of states: perceptual tokens by their medium (``image``, ``audio`` …) and ``text``.
Where a score has a direction, it is from the first to the second. Depth 0 is the LLM's input, depth l what its block l
makes of it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from mmbridge.evaluation.bootstrap import Estimate

Better = Literal["higher", "lower", "neither"]
Told = TypeVar("Told")


@dataclass(frozen=True, slots=True)
class Definition:
    """What a score is, for people: ``title``, its ``formula`` in symbols that the text explains, the ``unit`` and range
    it comes in, which way is ``better`` aligned, what ``chance`` and ``control`` are here (empty where there is none),
    and the published ``source``, with what differs from it."""

    title: str
    formula: str
    unit: str
    better: Better
    chance: str
    control: str
    source: str


def some(of_depths: Sequence[Told]) -> list[Told]:
    """The first, the one in the middle and the last, for what is not told of every depth."""
    count = len(of_depths)
    return [of_depths[place] for place in sorted({0, count // 2, count - 1})] if count else []


@dataclass(frozen=True, slots=True)
class Curve:
    """A score over the depth of the LLM.

    ``score`` is its name among the definitions, ``of`` the groups, ``site`` the place in a block (``block`` is its
    output), ``depths`` (L,) where, ``values`` (L,) there, ``mean`` their mean over depths; ``control`` (L,) the same
    score where what it rests on has been destroyed, such as pairs that are shuffled; ``chance`` (L,);
    ``control_mean`` that of the control, where its interval is known.
    """

    score: str
    of: tuple[str, ...]
    site: str
    depths: tuple[int, ...]
    values: tuple[Estimate, ...]
    mean: Estimate
    control: tuple[Estimate, ...] = ()
    chance: tuple[float, ...] = ()
    control_mean: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Scalar:
    """A score that is one number."""

    score: str
    of: tuple[str, ...]
    value: Estimate
    control: Estimate | None = None
    chance: float | None = None


@dataclass(frozen=True, slots=True)
class Matrix:
    """A score of pairs: ``values`` (R, C) of what ``rows`` (R,) and ``columns`` (C,) name."""

    score: str
    of: tuple[str, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    chance: float | None = None


@dataclass(frozen=True, slots=True)
class Histogram:
    """How something is spread at one depth: ``counts`` by group, (K,) between ``edges`` (K + 1,)."""

    score: str
    depth: int
    edges: tuple[float, ...]
    counts: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Words:
    """What the LLM would say at one depth: by group, the likeliest words and the share of each in the mean of all
    tokens' distributions."""

    score: str
    depth: int
    said: Mapping[str, tuple[tuple[str, float], ...]]


@dataclass(frozen=True, slots=True)
class View:
    """States of one depth in two dimensions: ``points`` by group, (N, 2); ``method`` says how they got there."""

    method: str
    depth: int
    points: Mapping[str, tuple[tuple[float, float], ...]]


@dataclass(frozen=True, slots=True)
class AlignmentReport:
    """All that was measured of one bridge.

    ``bridge`` is what people call it; ``about`` says what else there is to know (stage, data, samples, which positions
    are text, seconds, memory), in the order in which it is told; ``cost`` is the time of each optional score and of the
    default set over that of plain forward passes, by name.
    """

    bridge: str
    about: Mapping[str, str | int | float]
    definitions: Mapping[str, Definition]
    curves: tuple[Curve, ...] = ()
    scalars: tuple[Scalar, ...] = ()
    matrices: tuple[Matrix, ...] = ()
    histograms: tuple[Histogram, ...] = ()
    words: tuple[Words, ...] = ()
    views: tuple[View, ...] = ()
    cost: Mapping[str, float] = field(default_factory=dict)

    def curve(self, score: str, *of: str, site: str = "block") -> Curve:
        """The one curve of a score and its groups.

        Raises:
            KeyError: there is none.
        """
        for each in self.curves:
            if (each.score, each.of, each.site) == (score, of, site):
                return each
        raise KeyError((score, of, site))

    def to_dict(self) -> dict[str, Any]:
        """What ``align --json`` writes of a bridge; numbers that are not finite are ``null``."""
        plain: dict[str, Any] = json.loads(json.dumps(_plain(self)))
        return plain


def _plain(value: Any) -> Any:
    """Dataclasses as objects, estimates as [value, low, high], numbers that are not finite as nothing."""
    match value:
        case Estimate():
            return [_plain(each) for each in (value.value, value.low, value.high)]
        case float():
            return value if abs(value) < float("inf") else None
        case str() | int() | None:
            return value
        case Mapping():
            return {str(key): _plain(each) for key, each in value.items()}
        case Sequence():
            return [_plain(each) for each in value]
    return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
