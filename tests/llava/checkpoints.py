"""Tiny random LLaVA checkpoints in transformers' own folder format, and conversations about noise."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
)

from mmbridge.data.sample import Medium, Message, Sample
from tests.tiny import tiny_llava

PINPOINTS = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]


def tiny_llava_next(folder: Path, tower: Literal["clip", "siglip"] = "clip", family: str = "llama") -> Path:
    """The tiny LLaVA's weights in a LLaVA-NeXT folder, with a newline and a processor that tiles."""
    plain = tiny_llava(folder.with_name(folder.name + "-plain"), tower, family)
    small: Any = LlavaForConditionalGeneration.from_pretrained(plain)
    settings = small.config.to_dict()
    shared = {name: settings[name] for name in ("vision_feature_select_strategy", "image_token_index")}
    parts = {"vision_config": small.config.vision_config, "text_config": small.config.text_config}
    config: Any = LlavaNextConfig
    model: Any = LlavaNextForConditionalGeneration(config(**parts, **shared, image_grid_pinpoints=PINPOINTS))
    newline = {"model.image_newline": torch.linspace(-0.5, 0.5, small.config.text_config.hidden_size)}
    model.load_state_dict(small.state_dict() | newline)
    model.save_pretrained(folder)
    auto: Any = AutoProcessor
    processor = auto.from_pretrained(plain)
    images = processor.image_processor
    tiles = LlavaNextImageProcessor(
        size={"shortest_edge": 32},
        crop_size={"height": 32, "width": 32},
        image_mean=images.image_mean,
        image_std=images.image_std,
        image_grid_pinpoints=PINPOINTS,
    )
    next_processor: Any = LlavaNextProcessor
    next_processor(
        tiles,
        processor.tokenizer,
        patch_size=processor.patch_size,
        vision_feature_select_strategy=processor.vision_feature_select_strategy,
        chat_template=processor.chat_template,
        num_additional_image_tokens=processor.num_additional_image_tokens,
    ).save_pretrained(folder)
    return folder


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


SIZES = ((48, 32), (40, 40), (30, 70))


def conversations(sizes: Sequence[tuple[int, int]] = SIZES) -> list[Sample]:
    """One image and one answer; text alone, two turns; two images of other shapes, apart."""
    first, second, third = (Medium("image", noise(*size, seed), "noise") for seed, size in enumerate(sizes))
    talks: list[Sequence[Message]] = [
        (Message("user", (first, "What do you see?")), Message("assistant", ("A large red circle.",))),
        (
            Message("user", ("How many objects are there?",)),
            Message("assistant", ("two",)),
            Message("user", ("Is there a green triangle?",)),
            Message("assistant", ("No, there is a yellow star.",)),
        ),
        (
            Message("user", (second, "Question: what colour is the circle?")),
            Message("assistant", ("red",)),
            Message("user", (third, "Is it red?")),
            Message("assistant", ("No",)),
        ),
    ]
    return [Sample(f"talk {number}", tuple(talk)) for number, talk in enumerate(talks)]


def turns(messages: Sequence[Message], images: Sequence[Any] = ()) -> list[dict[str, Any]]:
    """Messages as transformers takes them, with the images themselves if they are given."""
    waiting = iter(images)

    def written(part: str | Medium) -> dict[str, Any]:
        if isinstance(part, str):
            return {"type": "text", "text": part}
        return {"type": "image"} | ({"image": next(waiting)} if images else {})

    return [{"role": each.role, "content": [written(part) for part in each.content]} for each in messages]


def pictures(messages: Sequence[Message]) -> list[Any]:
    return [medium.source for message in messages for medium in message.media]


class Reference:
    """transformers' own class and processor, from a folder."""

    def __init__(self, folder: Path) -> None:
        auto_processor: Any = AutoProcessor
        self.processor = auto_processor.from_pretrained(folder)
        auto_model: Any = AutoModelForImageTextToText
        self.model = auto_model.from_pretrained(folder, dtype=torch.float32).eval()

    def inputs(self, talks: Sequence[Sequence[Message]], *, side: str, opening: bool) -> Any:
        self.processor.tokenizer.padding_side = side
        texts = [
            self.processor.apply_chat_template(turns(talk), tokenize=False, add_generation_prompt=opening)
            for talk in talks
        ]
        images = [picture for talk in talks for picture in pictures(talk)]
        specials = not texts[0].startswith(str(self.processor.tokenizer.bos_token))
        return self.processor(
            text=texts, images=images or None, padding=True, return_tensors="pt", add_special_tokens=specials
        )

    @torch.no_grad()
    def texts(self, talks: Sequence[Sequence[Message]], count: int) -> list[str]:
        inputs = self.inputs(talks, side="left", opening=True)
        ids = self.model.generate(**inputs, max_new_tokens=count, do_sample=False)
        new = ids[:, inputs["input_ids"].shape[1] :]
        decoded = self.processor.tokenizer.batch_decode(
            new, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return [text.strip() for text in decoded]
