"""The same texts and images as a batch of this project and as one of transformers' LLaVA class.

Texts are of random token ids: a beginning that all have in common, as a system message is, an image, a question, and an
answer, which alone is supervised.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from random_llava import WORDS, Shape
from torch import Tensor

from mmbridge.data.batch import Batch
from mmbridge.encoders.base import Views
from mmbridge.llm.prompt import Placeholder, Prompt

IMAGE, PAD = WORDS.index("<image>"), WORDS.index("</s>")


@dataclass(frozen=True, slots=True)
class Text:
    """Token ids around an image; ``image`` is its number, ``None`` for text alone."""

    before: tuple[int, ...]
    image: int | None
    after: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def words(self) -> int:
        return len(self.before) + len(self.after) + len(self.answer)


def captions(shape: Shape, images: int, each: int) -> list[Text]:
    """``each`` captions of every image, asked for in the same words."""
    draw = torch.Generator().manual_seed(0)
    before, after = _random(shape, shape.before, draw), _random(shape, shape.after, draw)
    return [Text(before, n // each, after, _random(shape, shape.answer, draw)) for n in range(images * each)]


def instructions(shape: Shape, count: int) -> list[Text]:
    """Questions and answers of very unequal lengths, one in sixteen without an image."""
    draw = torch.Generator().manual_seed(0)
    before = _random(shape, shape.before, draw)
    scale = (3.5 + torch.randn(count, generator=draw)).exp()
    made = []
    for number, length in enumerate(scale.clamp(2, 12 * shape.answer).int().tolist()):
        image = None if number % 16 == 15 else number
        made.append(Text(before, image, _random(shape, shape.after, draw), _random(shape, length, draw)))
    return made


def pictures(shape: Shape, texts: Sequence[Text]) -> Tensor:
    """(images, 3, H, W), as many as the texts show."""
    count = 1 + max(text.image for text in texts if text.image is not None)
    return torch.randn(count, 3, shape.image, shape.image, generator=torch.Generator().manual_seed(1))


def batch(texts: Sequence[Text], images: Tensor, encoder: str) -> Batch:
    """A batch for a bridge with this encoder; each image is in it once."""
    shown = sorted({text.image for text in texts if text.image is not None})
    prompts = tuple(_prompt(str(number), text) for number, text in enumerate(texts))
    media = tuple(() if text.image is None else (shown.index(text.image),) for text in texts)
    return Batch(prompts, {encoder: [Views(images[number][None]) for number in shown]}, (), (), media)


def inputs(shape: Shape, texts: Sequence[Text], images: Tensor, length: int = 0) -> dict[str, Any]:
    """Keywords for ``LlavaForConditionalGeneration``: a row a text, padded on the right, to ``length`` at least."""
    rows = [ids(shape, text) for text in texts]
    words = torch.full((len(rows), max(length, *map(len, rows))), PAD)
    mask, labels = torch.zeros_like(words), torch.full_like(words, -100)
    for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
        words[number, : len(row)], mask[number, : len(row)] = torch.tensor(row), 1
        labels[number, len(row) - len(text.answer) : len(row)] = torch.tensor(text.answer)
    return {"input_ids": words, "attention_mask": mask, "labels": labels, **seen(texts, images)}


def ids(shape: Shape, text: Text) -> list[int]:
    """What transformers reads of a text: a token for every perceptual one."""
    image = [] if text.image is None else [IMAGE] * shape.visual
    return [*text.before, *image, *text.after, *text.answer]


def seen(texts: Sequence[Text], images: Tensor) -> dict[str, Tensor]:
    """The images of these texts, in their order, as a keyword; none without any."""
    pixels = [images[text.image] for text in texts if text.image is not None]
    return {"pixel_values": torch.stack(pixels)} if pixels else {}


def _prompt(name: str, text: Text) -> Prompt:
    image = [] if text.image is None else [IMAGE]
    ids = (*text.before, *image, *text.after, *text.answer)
    places = tuple(Placeholder(len(text.before), "image") for _ in image)
    supervised = (False,) * (len(ids) - len(text.answer)) + (True,) * len(text.answer)
    return Prompt(name, ids, supervised, places, "")


def _random(shape: Shape, count: int, draw: torch.Generator) -> tuple[int, ...]:
    return tuple(torch.randint(len(WORDS), shape.vocabulary, (count,), generator=draw).tolist())
