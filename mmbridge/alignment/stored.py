"""States of the first media, each with the first text beside it, kept whole for scores that sums do not give.

Symbols: N pairs, D width of the states, M perceptual tokens and L tokens of text of a pair.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmbridge.alignment.running import Side
from mmbridge.alignment.site_states import SiteStates
from mmbridge.data.sample import MediumKind


@dataclass(slots=True)
class StoredDepth:
    """Of both sides at one depth: ``pooled`` N states (D,) in float32, and ``tokens`` of each pair, (M, D) and (L, D)
    in the model's dtype, where they are kept. ``media`` are the numbers of what the pairs show."""

    pooled: tuple[list[Tensor], list[Tensor]] = field(default_factory=lambda: ([], []))
    tokens: tuple[list[Tensor], list[Tensor]] = field(default_factory=lambda: ([], []))
    media: set[int] = field(default_factory=set)

    def means(self, side: Side) -> Tensor:
        """(N, D) in float64."""
        return torch.stack(self.pooled[side]).double()

    def padded(self, side: Side) -> tuple[Tensor, Tensor]:
        """(N, longest, D) in float32, and (N, longest), true at tokens."""
        rows = pad_sequence(self.tokens[side], batch_first=True).float()
        lengths = torch.tensor([len(each) for each in self.tokens[side]])
        return rows, torch.arange(rows.shape[1]) < lengths[:, None]

    def cloud(self, side: Side, pairs: Sequence[int]) -> Tensor:
        """(their tokens, D) of some pairs, in the order given."""
        return torch.cat([self.tokens[side][pair] for pair in pairs])


class StoredPairs:
    """Reads the LLM's input and block outputs, of the first ``limit`` pairs of each kind of medium that show different
    ones; ``pairs`` are by kind, then by depth."""

    def __init__(self, limit: int, *, tokens: bool) -> None:
        self.pairs: dict[MediumKind, dict[int, StoredDepth]] = {}
        self._limit, self._tokens = limit, tokens

    @property
    def counts(self) -> dict[MediumKind, int]:
        """How many pairs there are of each kind."""
        return {kind: len(depths[0].media) for kind, depths in self.pairs.items()}

    @property
    def nbytes(self) -> int:
        """Memory they take."""
        depths = [depth for by_depth in self.pairs.values() for depth in by_depth.values()]
        sides = [side for depth in depths for side in (*depth.pooled, *depth.tokens)]
        return sum(each.nbytes for side in sides for each in side)

    def read(self, states: SiteStates) -> None:
        """Adds what is still wanted of a batch at a site."""
        groups = states.groups
        for place, kind in enumerate(groups.kinds):
            depth = self.pairs.setdefault(kind, {}).setdefault(states.site.depth, StoredDepth())
            for row in groups.pairs(kind).tolist():
                if len(depth.media) == self._limit or groups.media[row] in depth.media:
                    continue
                depth.media.add(groups.media[row])
                for side, group in ((Side.PERCEPTUAL, place), (Side.TEXT, len(groups.kinds))):
                    depth.pooled[side].append(states.pooled[row, group].cpu().clone())
                    if self._tokens:
                        depth.tokens[side].append(states.states[row, groups.masks[row, group]].cpu())
