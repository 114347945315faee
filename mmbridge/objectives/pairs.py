"""The image–text pairs of a batch, and what a Q-Former with a text branch makes of them: each pass is made once.

Symbols: S pairs of this process, A of all that train together, V views, L text tokens, M queries, W width of the
Q-Former, C width of the shared space. A medium that several samples show has one view, read once.
"""

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmbridge.connectors.branch_tokens import NOTHING, padded
from mmbridge.connectors.text_heads import TextHeads, similarities
from mmbridge.joint import joint
from mmbridge.ranks import Ranks

if TYPE_CHECKING:
    from mmbridge.objectives.run import BatchRun


class Pairs:
    """The media that are ``queried``, and beside each its sample's text.

    Where none is real, one pair of nothing. ``ids`` (S, L), ``mask`` and ``lengths`` (S,) are the texts, of ``longest``
    tokens at most.
    """

    def __init__(self, run: "BatchRun", name: str) -> None:
        self._run, self.queried = run, run.queried(name)
        text = self.queried.qformer.config.text
        assert text is not None
        self.longest = text.length
        texts = [run.batch.texts[name][sample] for sample in self.queried.samples] or [NOTHING]
        device = run.bridge.device
        self.ids, self.mask = padded(texts, device)
        self.lengths = self.mask.sum(dim=1)

    @property
    def heads(self) -> TextHeads:
        heads = self.queried.qformer.heads
        assert heads is not None
        return heads

    @cached_property
    def shared(self) -> Tensor:
        """(V, M, C), every view in the shared space."""
        return self.heads.images(self.queried.states)

    @cached_property
    def images(self) -> Tensor:
        """(S, M, C), each pair's medium in the shared space."""
        return self.shared[self.queried.medium][: self.queried.count]

    @cached_property
    def texts(self) -> Tensor:
        """(S, C), each pair's text in the shared space."""
        return self.queried.qformer.told(self.ids, self.mask)[: self.queried.count]

    @cached_property
    def _joint(self) -> tuple[Tensor, Tensor]:
        """(A, M, C) and (A, C): media and texts of all processes' pairs, by rank."""
        both = joint(torch.cat([self.images.flatten(1), self.texts], dim=1), self._run.ranks)
        width = both.shape[1] - self.texts.shape[1]
        images, texts = both[:, :width], both[:, width:]
        return images.reshape(-1, *self.images.shape[1:]), texts

    @cached_property
    def to_texts(self) -> Tensor:
        """(S, A): how near each medium is to the texts of all pairs; its nearest query counts."""
        return similarities(self.images, self._joint[1])

    @cached_property
    def to_images(self) -> Tensor:
        """(S, A): how near each text is to the media of all pairs."""
        return similarities(self._joint[0], self.texts).T

    @cached_property
    def matching(self) -> Tensor:
        """(S, A), true where a pair is about the same medium."""
        return matching(self.queried.medium[: self.queried.count], self._run.ranks)


def matching(media: Tensor, ranks: Ranks) -> Tensor:
    """Which medium of its process each of S samples shows to (S, A), true where it is the same one."""
    own = torch.stack([torch.full_like(media, ranks.rank), media], dim=1)
    return (own[:, None] == torch.cat(ranks.rows(own))[None]).all(dim=2)
