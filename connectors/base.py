"""A connector is a resampler, then a projector: features in, perceptual tokens out.

Symbols: V views, N → M tokens of a view, D_enc → D_c → D_llm widths, B media, S looks at them, L tokens of a text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol, runtime_checkable

from torch import Tensor

from mmbridge.encoders.base import EncoderFacts, Features, Grid, Tiling, views_per_medium


@dataclass(frozen=True)  # without slots: ZeRO-3 looks for the tensors in what a module returns
class PerceptualTokens:
    """What the LLM reads in place of media: ``values`` (B, M, D_llm) and ``mask`` (B, M), true where real."""

    values: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Instructions:
    """What is read beside the features of B media, in S looks at them.

    ``media`` says which of the B each look is at; ``ids`` (S, L) are the texts, padded behind, ``mask`` (S, L) is true
    where they are real.
    """

    media: tuple[int, ...]
    ids: Tensor
    mask: Tensor

    def rows(self, tilings: Sequence[Tiling | None]) -> tuple[list[int], list[int]]:
        """The views of all looks, one look after the other, and which look each is of."""
        counts = views_per_medium(tilings)
        first = [0, *accumulate(counts)]
        views = [first[medium] + place for medium in self.media for place in range(counts[medium])]
        return views, [look for look, medium in enumerate(self.media) for _ in range(counts[medium])]


class Resampler(Protocol):
    """N×D_enc → M×D_c, with masks and grids kept true.

    Several encoders are joined on the width before, unless its config says that they come ``apart``: then it is called
    with the features of each, in order.
    """

    def __call__(self, *features: Features) -> Features: ...

    def facts(self, facts: EncoderFacts) -> EncoderFacts:
        """What comes out of it for an encoder of these facts, the first where they come apart (width D_c, grid,
        prefix)."""
        ...

    def grid(self, grid: Grid) -> Grid:
        """The grid one view of this grid becomes."""
        ...


@runtime_checkable
class Instructed(Protocol):
    """A resampler that can read an instruction beside the features."""

    def instructed(self, features: Features, instructions: Instructions) -> Features:
        """Of the looks in place of the media."""
        ...


@runtime_checkable
class Pretrained(Protocol):
    """A part of a connector that may start from weights trained elsewhere."""

    def initialise(self) -> None:
        """Takes them, where its config names some. What is saved and loaded has no need of them."""
        ...


@dataclass(frozen=True, slots=True)
class Words:
    """The LLM's side of a projector: ``width`` is D_llm.

    ``table`` (K, D_llm) are the input embeddings of its K words before they are multiplied by ``scale``, as Gemma's
    are, and ``head`` (K, D_llm) is its output head where that is another matrix; projectors that need no words are
    built without.
    """

    width: int
    table: Tensor | None = None
    head: Tensor | None = None
    scale: float = 1.0


class Projector(Protocol):
    """D_c → D_llm on the last dimension."""

    def __call__(self, values: Tensor) -> Tensor: ...
