"""The one object that says, during a forward pass of the LLM, what stands where in the sequence.

Symbols: B samples, T positions, D_llm the width of the LLM's input embeddings.
Whoever needs to know (objectives, alignment, pruning) reads it from ``LanguageModel.context``; nobody passes masks,
spans or labels along beside it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mmbridge.data.sample import MediumKind

if TYPE_CHECKING:
    from mmbridge.llm.tree import Tree


@dataclass(frozen=True, slots=True)
class Span:
    """Perceptual tokens of one medium: positions ``start`` to ``stop`` of a sample's row."""

    medium: MediumKind
    start: int
    stop: int


@dataclass(slots=True)
class ForwardContext:
    """One spliced batch.

    ``embeds`` (B, T, D_llm); ``mask`` (B, T) true where a position is real; ``positions`` (B, T) position ids;
    ``ids`` (B, T) token ids, the pad id at perceptual positions; ``perceptual`` (B, T) true at perceptual tokens;
    ``supervised`` (B, T) true at tokens the loss predicts; ``predicting`` (S,) for each of them, sample by sample, the
    position that predicts it, counted over all rows; ``targets`` (S,) its id; ``spans`` per sample, in order;
    ``samples`` their ids; ``padding`` the side rows are padded on. With padding on the right, positions count from 0 in
    every row and the causal mask alone keeps real positions from reading the padding.

    With ``trees`` all samples stand in one row, tree behind tree (``mmbridge.llm.packing``). Samples of a tree share
    positions, and so spans; what follows a sample's last prediction is not there.
    """

    embeds: Tensor
    mask: Tensor
    positions: Tensor
    ids: Tensor
    perceptual: Tensor
    supervised: Tensor
    predicting: NDArray[np.int64]
    targets: Tensor
    spans: tuple[tuple[Span, ...], ...]
    samples: tuple[str, ...]
    padding: Literal["left", "right"] = "right"
    trees: "tuple[Tree, ...]" = ()
