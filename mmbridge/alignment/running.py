"""Sums over samples from which the default scores follow, kept for every depth in memory that does not grow with them.

A mean over all N² pairs of samples of the cosine of two pooled states is one inner product: that of the two means of
directions. So what is kept of samples are sums. They are kept in ``LOTS`` lots, so that intervals can be taken by
drawing lots anew. Media are dealt to them in turn, each with all samples that show it; up to ``LOTS`` media each is a
lot of its own.

Symbols: G lots, D width of the states, B samples of a batch, P of them with a pair of a medium and text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import torch
from torch import Tensor

from mmbridge.alignment.site_states import SiteStates
from mmbridge.data.sample import MediumKind
from mmbridge.errors import DataError
from mmbridge.llm.sites import SiteName

LOTS = 100


class Side(IntEnum):
    """The two sides of a pair."""

    PERCEPTUAL = 0
    TEXT = 1


@dataclass(slots=True)
class PairSums:
    """Sums over pairs at one depth, by lot, in float64.

    ``counts`` (G,) pairs; of each side ``directions`` (2, G, D) sums pooled states at length one, ``units`` (2, G, D)
    means of states at length one; ``norms`` (2, G) sums median norms, ``steps`` (2, G) by stride the mean cosines of
    states with those that many blocks before.
    Of the pair itself ``matched`` (G,) sums inner products of the directions, ``matched_units`` (G,) those of the
    means; ``from_input`` and ``units_from_input`` (G,) are the same with the perceptual side at the LLM's input.
    """

    width: int
    counts: Tensor = field(default_factory=lambda: _zeros(LOTS))
    directions: Tensor = field(init=False)
    units: Tensor = field(init=False)
    norms: Tensor = field(default_factory=lambda: _zeros(2, LOTS))
    steps: dict[int, Tensor] = field(default_factory=dict)
    matched: Tensor = field(default_factory=lambda: _zeros(LOTS))
    matched_units: Tensor = field(default_factory=lambda: _zeros(LOTS))
    from_input: Tensor = field(default_factory=lambda: _zeros(LOTS))
    units_from_input: Tensor = field(default_factory=lambda: _zeros(LOTS))

    def __post_init__(self) -> None:
        self.directions, self.units = _zeros(2, LOTS, self.width), _zeros(2, LOTS, self.width)

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        tensors = (each for name in self.__slots__ if isinstance(each := getattr(self, name), Tensor))
        return sum(each.nbytes for each in (*tensors, *self.steps.values()))


class RunningSums:
    """Reads the LLM's input and the states of one kind of site, of every batch.

    ``sums`` are by medium, then by depth; those of ``block`` begin with the input, at depth 0.

    Args:
        strides: over how many blocks states are compared with what they were.
        site: whose states.
    """

    def __init__(self, strides: Sequence[int], site: SiteName = "block") -> None:
        self.sums: dict[MediumKind, dict[int, PairSums]] = {}
        self.site, self._strides = site, strides
        self._input: SiteStates
        self._before: dict[int, SiteStates] = {}

    @property
    def nbytes(self) -> int:
        """Memory the sums take."""
        return sum(each.nbytes for by_depth in self.sums.values() for each in by_depth.values())

    def read(self, states: SiteStates) -> None:
        """Adds a batch at a site, if it is one of those; sites come in the order of the computation."""
        depth = states.site.depth
        if states.site.name == "input":
            self._input = states
            self._before.clear()
        if states.site.name not in (("input", "block") if self.site == "block" else (self.site,)):
            return
        self._before[depth] = states
        steps = {stride: self._steps(depth, stride) for stride in self._strides if depth - stride in self._before}
        for kind in states.groups.kinds:
            by_depth = self.sums.setdefault(kind, {})
            if depth not in by_depth:
                by_depth[depth] = PairSums(states.values.shape[-1])
            self._add(by_depth[depth], kind, states, steps)
        for old in [each for each in self._before if each <= depth - max(self._strides, default=0)]:
            del self._before[old]

    def _add(self, into: PairSums, kind: MediumKind, states: SiteStates, steps: dict[int, Tensor]) -> None:
        groups, first = states.groups, self._input
        rows = groups.pairs(kind)
        _require_finite(states, rows)
        sides = torch.tensor([groups.kinds.index(kind), len(groups.kinds)], device=rows.device)
        at = rows[:, None], sides  # (P, 2)
        lots = torch.tensor(groups.media)[rows.cpu()] % LOTS
        perceptual, text = directions = _exact(states.directions[at])
        perceptual_units, text_units = units = _exact(states.unit[at])
        into.counts.index_add_(0, lots, torch.ones(len(lots), dtype=torch.float64))
        into.directions.index_add_(1, lots, directions)
        into.units.index_add_(1, lots, units)
        into.norms.index_add_(1, lots, _exact(states.median_norms[at]))
        into.matched.index_add_(0, lots, (perceptual * text).sum(dim=-1))
        into.matched_units.index_add_(0, lots, (perceptual_units * text_units).sum(dim=-1))
        if first.values.shape[-1] == states.values.shape[-1]:
            into.from_input.index_add_(0, lots, (_exact(first.directions[at])[0] * text).sum(dim=-1))
            into.units_from_input.index_add_(0, lots, (_exact(first.unit[at])[0] * text_units).sum(dim=-1))
        for stride, cosines in steps.items():
            into.steps.setdefault(stride, _zeros(2, LOTS)).index_add_(1, lots, _exact(cosines[at]))

    def _steps(self, depth: int, stride: int) -> Tensor:
        """(B, K), each group's mean cosine of its states with what they were."""
        now, then = self._before[depth], self._before[depth - stride]
        cosines = (now.values * then.values).sum(dim=-1) / (now.norms * then.norms).clamp(min=1e-12)
        means: Tensor = now.groups.means @ cosines[..., None]
        return means[..., 0]


def _require_finite(states: SiteStates, rows: Tensor) -> None:
    """Raises:
    DataError: a state that is to be added is not finite.
    """
    bad = ~states.pooled[rows].isfinite().all(dim=-1).all(dim=-1)
    if bad.any():
        where = "the LLM's input" if states.site.name == "input" else f"{states.site.name} {states.site.depth}"
        problem = f"expected finite states, found {int(bad.sum())} of {len(rows)} samples of a batch with others"
        raise DataError(where, problem, "load the LLM in bfloat16 or float32")


def _zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.float64)


def _exact(values: Tensor) -> Tensor:
    """(P, 2, …) to (2, P, …), in float64 and main memory."""
    return values.transpose(0, 1).cpu().double()
