"""Splicing: prompts and perceptual tokens become one batch of input embeddings, by position.

Symbols: B samples, T positions, M_i perceptual tokens of medium i, D_llm the width of the LLM's input embeddings.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmbridge.context import ForwardContext, Span
from mmbridge.llm.prompt import Prompt
from mmbridge.llm.reading import Reading, read

Embed = Callable[[Tensor], Tensor]


def splice(
    embed: Embed,
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
    readings = [
        read(prompt, [len(values) for values in media], range(len(media)), max_length)
        for prompt, media in zip(prompts, tokens, strict=True)
    ]
    lengths = [len(reading.codes) for reading in readings]
    shape = len(prompts), max(lengths)
    first = np.array([shape[1] - length if side == "left" else 0 for length in lengths])
    codes, supervised = np.full(shape, pad_id, dtype=np.int64), np.zeros(shape, dtype=np.bool_)
    for row, (reading, start, length) in enumerate(zip(readings, first, lengths, strict=True)):
        codes[row, start : start + length] = reading.codes
        supervised[row, start : start + length] = reading.supervised
    places = np.arange(shape[1]) - first[:, None]
    ids, embeds = embedded(embed, codes, [*(values for media in tokens for values in media), *resting], pad_id)
    rows, columns = supervised[:, 1:].nonzero()
    return ForwardContext(
        embeds=embeds,
        mask=placed((places >= 0) & (places < np.array(lengths)[:, None]), embeds),
        positions=placed(places.clip(min=0), embeds),
        ids=ids,
        perceptual=placed(codes < 0, embeds),
        supervised=placed(supervised, embeds),
        predicting=rows * shape[1] + columns,
        targets=placed(codes[rows, columns + 1], embeds),
        spans=tuple(_moved(reading, int(start)) for reading, start in zip(readings, first, strict=True)),
        samples=tuple(prompt.sample for prompt in prompts),
        padding=side,
    )


def embedded(embed: Embed, codes: NDArray[np.int64], tokens: Sequence[Tensor], pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and embeddings of rows of codes; perceptual tokens stand in the order in which they come.

    Returns:
        ids (B, T) with the pad id at perceptual positions, and embeddings (B, T, D_llm).
    """
    ids = torch.from_numpy(np.where(codes < 0, pad_id, codes))
    embeds = embed(ids)
    if tokens:
        where = torch.from_numpy(np.flatnonzero(codes < 0)).to(embeds.device)
        values = torch.cat([*tokens]).to(embeds.device, embeds.dtype)
        embeds = embeds.flatten(0, 1).index_copy_(0, where, values).view(embeds.shape)
    return ids.to(embeds.device), embeds


def placed(array: NDArray[np.generic], beside: Tensor) -> Tensor:
    """An array as a tensor where another one is."""
    return torch.from_numpy(array).to(beside.device)


def _moved(reading: Reading, first: int) -> tuple[Span, ...]:
    """Where media stand in a row in which the sample begins at ``first``."""
    return tuple(replace(span, start=span.start + first, stop=span.stop + first) for span in reading.spans)
