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
) -> ForwardContext:
    """Put each sample's perceptual tokens where its placeholders stand, and pad the rows to one length.

    Args:
        embed: token ids (B, T) to embeddings (B, T, D_llm); every other tensor goes to their device.
        prompts: one per sample.
        tokens: per sample, per placeholder in order, perceptual tokens (M_i, D_llm); M_i may differ, and be zero.
        side: where padding goes: right for training, left for generation.
        pad_id: the token id written at padding and at perceptual positions; it must have an embedding.
        max_length: the longest row allowed, in positions.

    Raises:
        DataError: with the sample's id: media and placeholders differ in number, or the row is over-long.
    """
    lengths = [_length(prompt, media, max_length) for prompt, media in zip(prompts, tokens, strict=True)]
    shape = len(prompts), max(lengths)
    ids = np.full(shape, pad_id, dtype=np.int64)
    supervised, perceptual = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
    padding = np.array([shape[1] - length if side == "left" else 0 for length in lengths])[:, None]
    places = np.arange(shape[1])[None, :]
    mask = places >= padding if side == "left" else places < np.array(lengths)[:, None]
    spans = []
    for row, (prompt, media) in enumerate(zip(prompts, tokens, strict=True)):
        said, asked = np.array(prompt.ids), np.array(prompt.supervised)
        read, at, found = 0, int(padding[row, 0]), []  # read: next token of the prompt; at: where it goes
        for placeholder, values in zip(prompt.placeholders, media, strict=True):
            text = slice(at, at + placeholder.position - read)
            ids[row, text], supervised[row, text] = (each[read : placeholder.position] for each in (said, asked))
            span = Span(placeholder.medium, text.stop, text.stop + len(values))
            perceptual[row, span.start : span.stop] = True
            found.append(span)
            read, at = placeholder.position + 1, span.stop
        text = slice(at, at + len(said) - read)
        ids[row, text], supervised[row, text] = said[read:], asked[read:]
        spans.append(tuple(found))
    given = torch.from_numpy(ids)
    embeds = embed(given)
    device = embeds.device
    if pieces := [values for media in tokens for values in media]:
        where = torch.from_numpy(np.flatnonzero(perceptual)).to(device)
        values = torch.cat(pieces).to(device, embeds.dtype)
        embeds = embeds.flatten(0, 1).index_copy_(0, where, values).view(embeds.shape)
    positions = torch.from_numpy(places - padding).clamp_(min=0)
    return ForwardContext(
        embeds=embeds,
        mask=torch.from_numpy(mask).to(device),
        positions=positions.to(device),
        ids=given.to(device),
        perceptual=torch.from_numpy(perceptual).to(device),
        supervised=torch.from_numpy(supervised).to(device),
        spans=tuple(spans),
        samples=tuple(prompt.sample for prompt in prompts),
        padding=side,
    )


def _length(prompt: Prompt, media: Sequence[Tensor], max_length: int) -> int:
    if len(media) != len(prompt.placeholders):
        problem = f"expected {len(prompt.placeholders)} media for its placeholders, found {len(media)}"
        raise DataError(f"sample {prompt.sample}", problem)
    length = len(prompt.ids) - len(media) + sum(len(values) for values in media)
    if length > max_length:
        problem = f"expected at most {max_length} positions, found {length}"
        raise DataError(f"sample {prompt.sample}", problem, "raise llm.max_length or use fewer perceptual tokens")
    return length
