"""Tiny vision models with random weights, saved as their own libraries save them.

Images are 32 pixels square and patches 8, so that the grid is 4×4; every encoder is 32 wide, and 3 or 4 blocks deep.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import save_model
from timm.models import save_for_hf

from mmbridge.encoders.base import Picture
from mmbridge.encoders.vision import VisionEncoder
from tests.tiny import tiny_clip, tiny_siglip

BODY: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
VISION: dict[str, Any] = {**BODY, "image_size": 32, "patch_size": 8}
TEXT: dict[str, Any] = {**BODY, "vocab_size": 300, "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 1}
SQUARE = {"height": 32, "width": 32}
SHORTEST: dict[str, Any] = {"size": {"shortest_edge": 32}, "crop_size": SQUARE}


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with some noise, so that neither resizing nor normalising can hide an error."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [120 + 100 * np.sin(rows / (3 + c) + columns / (5 - c) + seed) for c in range(3)]
    noisy = np.stack(planes, -1) + random.normal(0, 10, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def seen(encoder: VisionEncoder, *pictures: Picture) -> torch.Tensor:
    """(V, C, H, W) as the first layer of the model gets it."""
    first = next(module for module in encoder.model.modules() if isinstance(module, torch.nn.Conv2d))
    caught: list[torch.Tensor] = []
    with first.register_forward_pre_hook(lambda _, args: caught.append(args[0])):
        encoder.encode([encoder.prepare(each) for each in pictures])
    return caught[0]


def randomise(module: torch.nn.Module, seed: int = 0) -> None:
    """Weights large enough for layers, heads and tokens to differ from one another."""
    random = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.2, generator=random)


def _clip_words(folder: Path) -> None:
    """CLIP with a tokenizer of its own kind, which opens and closes every text: the tower pools where it closes."""
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    table = {word: index for index, word in enumerate(words)}
    transformers.CLIPTokenizer(vocab=table, merges=[], model_max_length=16).save_pretrained(folder)
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=24)
    _saved(transformers.CLIPModel(config), transformers.CLIPImageProcessor(**SHORTEST), folder)


def _siglip_naflex(folder: Path) -> None:
    model = transformers.Siglip2VisionModel(transformers.Siglip2VisionConfig(**BODY, num_patches=16, patch_size=8))
    _saved(model, transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=16), folder)


def _dinov2(folder: Path) -> None:
    """Trained at 48 pixels and used at 32, as DINOv2's own checkpoints are at 518 and 224."""
    model = transformers.Dinov2Model(transformers.Dinov2Config(**{**VISION, "image_size": 48}))
    _saved(model, transformers.BitImageProcessor(size={"shortest_edge": 40}, crop_size=SQUARE), folder)


def _dinov2_registers(folder: Path) -> None:
    config = transformers.Dinov2WithRegistersConfig(**VISION, num_register_tokens=3)
    _saved(transformers.Dinov2WithRegistersModel(config), transformers.BitImageProcessor(**SHORTEST), folder)


def _mae(folder: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    decoder: dict[str, Any] = {f"decoder_{name}": size for name, size in sizes.items()}
    model = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**VISION, **decoder))
    _saved(model, transformers.ViTImageProcessor(size=SQUARE), folder)


def _blip2(folder: Path) -> None:
    config = transformers.Blip2Config(
        vision_config=VISION,
        qformer_config={**BODY, "vocab_size": 50, "encoder_hidden_size": 32},
        text_config={"model_type": "opt", **TEXT, "ffn_dim": 64, "word_embed_proj_dim": 32},
    )
    model = transformers.Blip2ForConditionalGeneration(config)
    _saved(model, transformers.BlipImageProcessor(size=SQUARE), folder)


def _instructblip(folder: Path) -> None:
    config = transformers.InstructBlipConfig(
        vision_config=VISION,
        qformer_config={**BODY, "vocab_size": 50, "encoder_hidden_size": 32},
        text_config={"model_type": "opt", **TEXT, "ffn_dim": 64, "word_embed_proj_dim": 32},
    )
    model = transformers.InstructBlipForConditionalGeneration(config)
    _saved(model, transformers.BlipImageProcessor(size=SQUARE), folder)


def _llava(folder: Path) -> None:
    vision = transformers.CLIPVisionConfig(**VISION)
    config = transformers.LlavaConfig(vision_config=vision, text_config={"model_type": "llama", **TEXT})
    model = transformers.LlavaForConditionalGeneration(config)
    _saved(model, transformers.CLIPImageProcessor(**SHORTEST), folder)


def _resnet(folder: Path) -> None:
    model = transformers.ResNetModel(transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1]))
    _saved(model, transformers.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=1.0), folder)


def _saved(model: Any, processor: Any, folder: Path) -> None:
    randomise(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


TIMM: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 4}


def _timm(architecture: str, **options: Any) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        model = timm.create_model(architecture, **options, num_classes=5)
        randomise(model)
        save_for_hf(model, str(folder), safe_serialization=True)

    return save


def _open_clip(**vision: Any) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2}
        config = {"embed_dim": 24, "vision_cfg": {"image_size": 32} | vision, "text_cfg": text}
        colours = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "interpolation": "bicubic"}
        folder.mkdir(parents=True)
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": colours}))
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
        randomise(model)
        save_model(model, str(folder / "open_clip_model.safetensors"))

    return save


MAKERS: dict[str, Callable[[Path], object]] = {
    "clip": tiny_clip,
    "clip_words": _clip_words,
    "siglip": tiny_siglip,
    "siglip_naflex": _siglip_naflex,
    "dinov2": _dinov2,
    "dinov2_registers": _dinov2_registers,
    "mae": _mae,
    "blip2": _blip2,
    "instructblip": _instructblip,
    "llava": _llava,
    "resnet": _resnet,
    "timm_vit": _timm("vit_tiny_patch16_224", **TIMM),
    "timm_registers": _timm("vit_tiny_patch16_224", **TIMM, reg_tokens=3),
    "timm_siglip": _timm("vit_base_patch16_siglip_224", **TIMM),
    "timm_eva": _timm("eva02_tiny_patch14_224", **TIMM),
    "timm_resnet": _timm("resnet10t"),
    "open_clip": _open_clip(patch_size=8, width=32, head_width=8, layers=4),
    "open_clip_timm": _open_clip(timm_model_name="test_vit", image_size=160, timm_pool="token", timm_proj="linear"),
    "open_clip_resnet": _open_clip(layers=[1, 1, 1, 1], width=8, head_width=8),
}
