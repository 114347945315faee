"""The states of a batch at one site, with what several scores make of them, each made once.

Symbols: B samples, T positions, D width of the states, K groups: the media of the batch and, last, text.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from mmbridge.alignment.positions import Positions
from mmbridge.data.sample import MediumKind
from mmbridge.llm.sites import Site


class BatchGroups:
    """The groups of a batch, for all its sites.

    ``masks`` (B, K, T) are true where a group stands, ``counts`` (B, K) say how often, ``means`` (B, K, T) are weights
    that sum to one where there is any; ``anywhere`` (B, T) is true where any group stands. ``media`` (B,) number
    samples by what they show, over all batches: two that show one medium have one number.
    """

    def __init__(self, found: Positions, media: Sequence[int]) -> None:
        self.media = media
        self.kinds: tuple[MediumKind, ...] = tuple(found.perceptual)
        self.masks = torch.stack([*found.perceptual.values(), found.text], dim=1)
        self.counts = self.masks.sum(dim=-1)
        self.anywhere = self.masks.any(dim=1)
        self.means = self.masks.float() / self.counts.clamp(min=1)[..., None]

    def pairs(self, kind: MediumKind) -> Tensor:
        """(P,) the rows of the batch that have perceptual tokens of a medium and text."""
        place = self.kinds.index(kind)
        return ((self.counts[:, place] > 0) & (self.counts[:, -1] > 0)).nonzero().flatten()


class SiteStates:
    """The states of a batch at a site.

    Args:
        states: (B, T, D), the model's own.
    """

    def __init__(self, site: Site, states: Tensor, groups: BatchGroups) -> None:
        self.site, self.groups, self.states = site, groups, states

    @cached_property
    def values(self) -> Tensor:
        """(B, T, D) in float32; zero at positions of no group, whatever the model makes there."""
        return self.states.float().where(self.groups.anywhere[..., None], 0.0)

    @cached_property
    def norms(self) -> Tensor:
        """(B, T), the L2 norm of every state."""
        norms: Tensor = torch.linalg.vector_norm(self.values, dim=-1)
        return norms

    @cached_property
    def pooled(self) -> Tensor:
        """(B, K, D), the mean state of each group of each sample; zero where it has none."""
        return self.groups.means @ self.values

    @cached_property
    def directions(self) -> Tensor:
        """(B, K, D), ``pooled`` at length one."""
        return functional.normalize(self.pooled, dim=-1, eps=1e-12)

    @cached_property
    def unit(self) -> Tensor:
        """(B, K, D), the mean of each group's states at length one: the inner product of two of these is the mean of
        the cosines of all pairs of their states."""
        return (self.groups.means / self.norms.clamp(min=1e-12)[:, None]) @ self.values

    @cached_property
    def median_norms(self) -> Tensor:
        """(B, K), the median norm of each group's states; NaN where it has none."""
        norms = self.norms[:, None].where(self.groups.masks, float("nan"))
        return torch.nanquantile(norms, 0.5, dim=-1)
