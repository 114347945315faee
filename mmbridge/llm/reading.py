"""A prompt as the LLM reads it: every placeholder widened to the perceptual tokens of its medium.

Symbols: T positions of a sample, M_i perceptual tokens of medium i.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from mmbridge.context import Span
from mmbridge.data.sample import MediumKind
from mmbridge.errors import DataError
from mmbridge.llm.prompt import Prompt

KINDS: tuple[MediumKind, ...] = get_args(MediumKind)


@dataclass(frozen=True, slots=True)
class Reading:
    """One sample, unpadded.

    ``codes`` (T,) are token ids, and below zero where a perceptual token stands: the same number at all those of one
    look. ``supervised`` (T,) is true at tokens the loss predicts; ``spans`` say where media stand, in order.
    """

    sample: str
    codes: NDArray[np.int64]
    supervised: NDArray[np.bool_]
    spans: tuple[Span, ...]

    @property
    def predicting(self) -> NDArray[np.int64]:
        """The positions that predict a supervised token. One at the very start has nothing that predicts it."""
        return np.flatnonzero(self.supervised[1:])

    @property
    def length(self) -> int:
        """The positions up to the last that predicts: what follows is read by nobody."""
        places = self.predicting
        return int(places[-1]) + 1 if len(places) else 0


def read(prompt: Prompt, lengths: Sequence[int], numbers: Sequence[int], max_length: int) -> Reading:
    """Widens a prompt.

    Args:
        lengths: M_i of each medium, in order; may be zero.
        numbers: which look at media of its kind each is; equal numbers have the same perceptual tokens.
        max_length: the longest allowed, in positions.

    Raises:
        DataError: with the sample's id: media and placeholders differ in number, or it is over-long.
    """
    if len(lengths) != len(prompt.placeholders):
        problem = f"expected {len(prompt.placeholders)} media for its placeholders, found {len(lengths)}"
        raise DataError(f"sample {prompt.sample}", problem)
    total = len(prompt.ids) - len(lengths) + sum(lengths)
    if total > max_length:
        problem = f"expected at most {max_length} positions, found {total}"
        raise DataError(f"sample {prompt.sample}", problem, "raise llm.max_length or use fewer perceptual tokens")
    codes, repeats, spans, shift = np.array(prompt.ids, np.int64), np.ones(len(prompt.ids), np.int64), [], 0
    for placeholder, length, number in zip(prompt.placeholders, lengths, numbers, strict=True):
        codes[placeholder.position] = -1 - (number * len(KINDS) + KINDS.index(placeholder.medium))
        repeats[placeholder.position] = length
        start = placeholder.position + shift
        spans.append(Span(placeholder.medium, start, start + length))
        shift += length - 1  # the placeholder itself is gone
    supervised = np.array(prompt.supervised, np.bool_)
    return Reading(prompt.sample, codes.repeat(repeats), supervised.repeat(repeats), tuple(spans))
