"""Which positions of a batch are perceptual tokens of which medium, and which are the text beside them.

Symbols: B samples, T positions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mmbridge.context import ForwardContext
from mmbridge.data.sample import MediumKind

TextName = Literal["said", "after"]
"""Which text is compared: what the assistant says (captions, answers; its ends of turns too), or every word behind the
first perceptual token, prompts among them."""


@dataclass(frozen=True, slots=True)
class Positions:
    """``perceptual`` (B, T) by medium, in the order in which media first stand there, and ``text`` (B, T)."""

    perceptual: Mapping[MediumKind, Tensor]
    text: Tensor


def positions(context: ForwardContext, text: TextName) -> Positions:
    """Of a spliced batch whose samples have rows of their own."""
    kinds = dict.fromkeys(span.medium for spans in context.spans for span in spans)
    perceptual = {kind: torch.zeros_like(context.mask) for kind in kinds}
    for row, spans in enumerate(context.spans):
        for span in spans:
            perceptual[span.medium][row, span.start : span.stop] = True
    if text == "said":
        return Positions(perceptual, context.supervised)
    behind = context.perceptual.cumsum(dim=1) > 0
    return Positions(perceptual, context.mask & behind & ~context.perceptual)
