"""Splicing: prompts and perceptual tokens become one batch of input embeddings, by position.

Symbols: B samples, T positions, M_i perceptual tokens of medium i, D_llm the width of the LLM's input embeddings.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mmbridge.context import ForwardContext, Span
from mmbridge.errors import DataError
from mmbridge.llm.prompt import Prompt


def splice(
    embed: Callable[[Tensor], Tensor],
    prompts: Sequence[Prompt],
    tokens: Sequence[Sequence[Tensor]],
    *,
    side: Literal["left", "right"],
    pad_id: int,
    max_length: int,
    resting: Sequence[Tensor] = (),
) -> ForwardContext:
    """Put each sample's perceptual tokens where its placeholders stand, and pad the rows to one length.

    Args:
        embed: token ids (B, T) to embeddings (B, T, D_llm); every other tensor goes to their device.
        prompts: one per sample.
        tokens: per sample, per placeholder in order, perceptual tokens (M_i, D_llm); M_i may differ, and be zero.
        side: where padding goes: right for training, left for generation.
        pad_id: the token id written at padding and at perceptual positions; it must have an embedding.
        max_length: the longest row allowed, in positions.
        resting: (0, D_llm) of connectors without media in this batch; nothing is put in, but they get a gradient.

    Raises:
        DataError: with the sample's id: media and placeholders differ in number, or the row is over-long.
    """
    lengths = [_length(prompt, media, max_length) for prompt, media in zip(prompts, tokens, strict=True)]
    shape = len(prompts), max(lengths)
    ids = np.full(shape, pad_id, dtype=np.int64)
    supervised, perceptual = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
    first = np.array([shape[1] - length if side == "left" else 0 for length in lengths])
    spans = []
    for row, (prompt, media) in enumerate(zip(prompts, tokens, strict=True)):
        spans.append(_spans(prompt, media, int(first[row])))
        read, at, said, asked = 0, int(first[row]), np.array(prompt.ids), np.array(prompt.supervised)
        for placeholder, span in zip(prompt.placeholders, spans[row], strict=True):
            ids[row, at : span.start] = said[read : placeholder.position]
            supervised[row, at : span.start] = asked[read : placeholder.position]
            perceptual[row, span.start : span.stop] = True
            read, at = placeholder.position + 1, span.stop
        end = at + len(said) - read
        ids[row, at:end], supervised[row, at:end] = said[read:], asked[read:]
    given = torch.from_numpy(ids)
    embeds = embed(given)
    device = embeds.device
    if pieces := [*(values for media in tokens for values in media), *resting]:
        where = torch.from_numpy(np.flatnonzero(perceptual)).to(device)
        values = torch.cat(pieces).to(device, embeds.dtype)
        embeds = embeds.flatten(0, 1).index_copy_(0, where, values).view(embeds.shape)
    places = np.arange(shape[1]) - first[:, None]
    mask = (places >= 0) & (places < np.array(lengths)[:, None])
    return ForwardContext(
        embeds=embeds,
        mask=torch.from_numpy(mask).to(device),
        positions=torch.from_numpy(places.clip(min=0)).to(device),
        ids=given.to(device),
        perceptual=torch.from_numpy(perceptual).to(device),
        supervised=torch.from_numpy(supervised).to(device),
        spans=tuple(spans),
        samples=tuple(prompt.sample for prompt in prompts),
        padding=side,
    )


def _spans(prompt: Prompt, media: Sequence[Tensor], first: int) -> tuple[Span, ...]:
    """Where media come to stand in a row whose first real position is ``first``."""
    spans, shift = [], first
    for placeholder, values in zip(prompt.placeholders, media, strict=True):
        start = placeholder.position + shift
        spans.append(Span(placeholder.medium, start, start + len(values)))
        shift += len(values) - 1  # the placeholder itself is gone
    return tuple(spans)


def _length(prompt: Prompt, media: Sequence[Tensor], max_length: int) -> int:
    if len(media) != len(prompt.placeholders):
        problem = f"expected {len(prompt.placeholders)} media for its placeholders, found {len(media)}"
        raise DataError(f"sample {prompt.sample}", problem)
    length = len(prompt.ids) - len(media) + sum(len(values) for values in media)
    if length > max_length:
        problem = f"expected at most {max_length} positions, found {length}"
        raise DataError(f"sample {prompt.sample}", problem, "raise llm.max_length or use fewer perceptual tokens")
    return length
