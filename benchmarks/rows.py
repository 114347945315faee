"""How texts of unequal lengths are laid into rows for transformers' LLaVA class, as those who train lay them.

    padded      to the longest of each batch
    fixed       to one length for all, as nanoVLM's collator does
    knapsacks   several one behind the other in rows of one length, as nanoVLM's training set does

nanoVLM (data/collators.py, data/advanced_datasets.py and models/config.py of huggingface/nanoVLM) pads every row to
``lm_max_length``, a power of two, 1024 in earlier and 4096 in later configurations, leaves padding out of the loss and
discards what is longer; it knows no gradient checkpointing. It puts the mean of its data at 262 tokens, 64 of them an
image's, so that its 1024 is 3.9 times the mean. Here the length is the least power of two that holds the longest text:
nothing is discarded, and 512 in the shape ``small`` is 1.8 times the mean, which is kinder than its own. It pads on the
left; here padding is on the right, which is the same work.

Its rows of several samples are as long as others. As hardly two would fit into 512, they are twice as long here, and
half as many in a forward pass. In nanoVLM the samples of a row read each other and their positions run on (its pull
request 204), which makes another gradient; here transformers keeps them apart, as it does where positions begin anew.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from random_llava import Shape
from torch import Tensor
from twin_batch import PAD, Text, ids, inputs, seen

from mmbridge.data.dealing import dealt

Rows = Callable[[Shape, Sequence[Text], Tensor, int], list[dict[str, Any]]]
"""Of a shape's texts and images, so many texts in a forward pass: keywords for each pass."""


def padded(shape: Shape, texts: Sequence[Text], images: Tensor, micro: int) -> list[dict[str, Any]]:
    return [inputs(shape, texts[at : at + micro], images) for at in range(0, len(texts), micro)]


def fixed(shape: Shape, texts: Sequence[Text], images: Tensor, micro: int) -> list[dict[str, Any]]:
    length = fixed_length(shape, texts)
    return [inputs(shape, texts[at : at + micro], images, length) for at in range(0, len(texts), micro)]


def knapsacks(shape: Shape, texts: Sequence[Text], images: Tensor, micro: int) -> list[dict[str, Any]]:
    length, together = 2 * fixed_length(shape, texts), max(1, micro // 2)
    lengths = [len(ids(shape, text)) for text in texts]
    (rows,) = dealt([(each, 1, each) for each in lengths], 1, length)
    filled = [[texts[number] for number in row] for row in rows]
    return [packed(shape, filled[at : at + together], images, length) for at in range(0, len(filled), together)]


def fixed_length(shape: Shape, texts: Sequence[Text]) -> int:
    """The least power of two that holds each."""
    return 1 << (max(len(ids(shape, text)) for text in texts) - 1).bit_length()


def packed(shape: Shape, rows: Sequence[Sequence[Text]], images: Tensor, length: int) -> dict[str, Any]:
    """Keywords for ``LlavaForConditionalGeneration``: rows of ``length``, padding a text of its own behind the others.

    Where positions begin anew and no mask is given, transformers makes the mask that keeps texts apart.
    """
    words = torch.full((len(rows), length), PAD)
    labels, positions = torch.full_like(words, -100), torch.zeros_like(words)
    for number, row in enumerate(rows):
        at = 0
        for text in row:
            own = torch.tensor(ids(shape, text))
            end = at + len(own)
            words[number, at:end], positions[number, at:end] = own, torch.arange(len(own))
            labels[number, end - len(text.answer) : end] = torch.tensor(text.answer)
            at = end
        positions[number, at:] = torch.arange(length - at)
    inside = [text for row in rows for text in row]
    return {"input_ids": words, "position_ids": positions, "labels": labels, **seen(inside, images)}
