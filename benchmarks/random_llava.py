"""LLaVA checkpoints with random weights: a CLIP tower, two linear maps and a Llama, made from sizes alone.

Time does not depend on the values of weights, so nothing need be downloaded to measure it.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    TokenizersBackend,
)

from mmbridge.frozen import quietly

WORDS = ("<unk>", "<s>", "</s>", "<image>")
"""All that the tokenizer knows: prompts are made of random ids from ``len(WORDS)`` on."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a model, and of a batch of ``samples``: tokens before the image, after it, and of the answer.

    ``llm`` and ``tower`` are (width, layers, heads, feed-forward width); ``image`` and ``patch`` in pixels.
    """

    llm: tuple[int, int, int, int]
    vocabulary: int
    tower: tuple[int, int, int, int]
    image: int
    patch: int
    samples: int
    before: int
    after: int
    answer: int

    @property
    def visual(self) -> int:
        """Perceptual tokens of an image."""
        return (self.image // self.patch) ** 2


SHAPES = {
    "small": Shape((512, 8, 8, 1408), 32000, (768, 12, 12, 3072), 224, 16, 4, 35, 8, 20),
    "tiny": Shape((32, 2, 4, 48), 96, (32, 3, 4, 48), 32, 8, 2, 5, 3, 4),
}
"""``small`` is a 26M-parameter Llama behind CLIP ViT-B/16; ``tiny`` is for tests."""


def options(about: str | None, rounds: int) -> argparse.ArgumentParser:
    """What every benchmark of a shape is asked: which one, how many rounds, how many threads."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=1)
    return parser


def write(shape: Shape, folder: Path) -> Path:
    """Saves model, tokenizer and image processor in transformers' own format, the same for the same shape."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    llm: dict[str, Any] = dict(zip(names, shape.llm, strict=True))
    tower: dict[str, Any] = dict(zip(names, shape.tower, strict=True))
    config = LlavaConfig(
        text_config=LlamaConfig(vocab_size=shape.vocabulary, max_position_embeddings=1024, **llm),
        vision_config=CLIPVisionConfig(image_size=shape.image, patch_size=shape.patch, **tower),
        image_token_index=WORDS.index("<image>"),
    )
    with torch.random.fork_rng(devices=[]), quietly():
        torch.manual_seed(0)
        LlavaForConditionalGeneration(config).save_pretrained(folder)
    side = {"height": shape.image, "width": shape.image}
    CLIPImageProcessor(size={"shortest_edge": shape.image}, crop_size=side).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    template = "{% for message in messages %}{{ message['content'] + '</s>' }}{% endfor %}"
    tokenizer = TokenizersBackend(  # type: ignore[no-untyped-call]
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="</s>", chat_template=template
    )
    tokenizer.save_pretrained(folder)
    return folder
