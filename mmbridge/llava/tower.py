"""The vision side of an exported bridge: a CLIP or SigLIP tower of transformers and its image processor.

An open_clip ViT becomes a ``CLIPVisionModel`` with the same weights, if it is the same network: that is checked by
running both. Its images are prepared with the same sizes, colours and interpolation; where an image has to be
resized, transformers' processor may differ from open_clip's by a grey level, and by a pixel in where it crops.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlavaImageProcessor,
    PretrainedConfig,
    SiglipVisionModel,
)

from mmbridge.encoders.config import OpenCLIPConfig, TransformersConfig, VisionConfig
from mmbridge.encoders.transformers import Processor
from mmbridge.encoders.vision import VisionEncoder
from mmbridge.errors import RecipeError
from mmbridge.frozen import freeze

_CLIP_NAMES = (
    (r"^class_embedding$", "embeddings.class_embedding"),
    (r"^conv1\.weight$", "embeddings.patch_embedding.weight"),
    (r"^positional_embedding$", "embeddings.position_embedding.weight"),
    (r"^ln_pre\.", "pre_layrnorm."),
    (r"^ln_post\.", "post_layernorm."),
    (r"^transformer\.resblocks\.(\d+)\.ln_([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"^transformer\.resblocks\.(\d+)\.attn\.out_proj\.", r"encoder.layers.\1.self_attn.out_proj."),
    (r"^transformer\.resblocks\.(\d+)\.mlp\.c_fc\.", r"encoder.layers.\1.mlp.fc1."),
    (r"^transformer\.resblocks\.(\d+)\.mlp\.c_proj\.", r"encoder.layers.\1.mlp.fc2."),
)
_JOINED = re.compile(r"^transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)$")


@dataclass(frozen=True, slots=True)
class TowerPart:
    """What a LLaVA folder needs of an encoder.

    ``layer`` and ``strategy`` are its ``vision_feature_layer`` and ``vision_feature_select_strategy``; ``extra`` counts
    the tokens before the patches.
    """

    config: PretrainedConfig
    state: dict[str, Tensor]
    processor: Any
    layer: int | list[int]
    strategy: Literal["default", "full"]
    extra: int


def tower_part(key: str, config: VisionConfig, encoder: VisionEncoder) -> TowerPart:
    """The tower behind an encoder, whole: blocks past the deepest tap are read again from its folder.

    Raises:
        RecipeError: transformers' LLaVA class cannot do what the encoder does, by its key in the recipe.
    """
    if config.norm:
        raise RecipeError(f"{key}.norm", "LLaVA reads hidden states without the final norm, found true")
    if config.aspect == "tiles":
        raise RecipeError(f"{key}.aspect", "LLaVA reads one view of an image, found tiles")
    if config.tokens not in ("patches", "all"):
        raise RecipeError(f"{key}.tokens", f"LLaVA reads patches or all tokens, found {config.tokens}")
    model, processor = _whole(key, config, encoder)
    extra = 1 if isinstance(model, CLIPVisionModel) else 0
    strategy: Literal["default", "full"] = "default" if extra and config.tokens == "patches" else "full"
    layer = config.layer if isinstance(config.layer, int) else list(config.layer)
    if config.aspect == "pad":
        processor = _padding(processor)
    return TowerPart(model.config, model.state_dict(), processor, layer, strategy, extra)


def _whole(key: str, config: VisionConfig, encoder: VisionEncoder) -> tuple[CLIPVisionModel | SiglipVisionModel, Any]:
    everything: dict[str, Any] = {"path": str(encoder.folder), "layer": -1, "tokens": "all"}
    if isinstance(config, TransformersConfig):
        whole = TransformersConfig(**everything).build()
        own = whole.prepare.own
        if not isinstance(whole.model, CLIPVisionModel | SiglipVisionModel) or not isinstance(own, Processor):
            found = type(whole.model).__name__
            raise RecipeError(f"{key}.path", f"LLaVA folders are written with a CLIP or SigLIP tower, found {found}")
        whole.model.load_state_dict(encoder.model.state_dict(), strict=False)  # a stage may have trained it
        return whole.model, own.processor
    if isinstance(config, OpenCLIPConfig):
        whole = OpenCLIPConfig(**everything).build()
        whole.model.load_state_dict(encoder.model.state_dict(), strict=False)
        return clip_from_open_clip(key, whole), _clip_processor(key, whole)
    raise RecipeError(f"{key}.kind", f"LLaVA folders are written from open_clip and transformers, found {config.kind}")  # type: ignore[attr-defined]


def clip_from_open_clip(key: str, encoder: VisionEncoder) -> CLIPVisionModel:
    """The same network in transformers' form.

    Args:
        key: the encoder's, for errors.
        encoder: an open_clip one that taps its last block and gives all tokens.

    Raises:
        RecipeError: it is another network than CLIP's.
    """
    visual: Any = encoder.model
    where, problem = f"{key}.path", "open_clip's vision tower is not the ViT of transformers' CLIP"
    state = {name: tensor for name, tensor in visual.state_dict().items() if name != "proj"}
    if "conv1.weight" not in state or not hasattr(visual, "transformer"):
        raise RecipeError(where, f"{problem} (it is carried by timm)", "name the same weights for kind transformers")
    block = visual.transformer.resblocks[0]
    width, _, patch, _ = state["conv1.weight"].shape
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=block.mlp.c_fc.out_features,
        num_hidden_layers=encoder.depth,
        num_attention_heads=block.attn.num_heads,
        image_size=encoder.facts.grid.height * patch,
        patch_size=patch,
        hidden_act="quick_gelu" if type(block.mlp.gelu).__name__ == "QuickGELU" else "gelu",
        layer_norm_eps=block.ln_1.eps,
    )
    model: CLIPVisionModel = freeze(CLIPVisionModel(config))
    try:
        model.load_state_dict(_renamed(state))
    except RuntimeError as fault:
        detail = str(fault).strip().splitlines()[1:2] or [""]
        raise RecipeError(where, f"{problem} ({detail[0].strip()})") from fault
    pixels = torch.randn(1, 3, *encoder.prepare.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = model(pixels, output_hidden_states=True).hidden_states[-1]
    if (gap := _gap(encoder(pixels, (None,)).values, theirs)) > 1e-5:
        raise RecipeError(where, f"{problem} (their last hidden states differ by {gap:.1g} of their size)")
    return model


def _gap(ours: Tensor, theirs: Tensor) -> float:
    """The size of their difference, as a fraction of their own."""
    return float((ours - theirs).norm() / ours.norm())


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's names to transformers'; the joint projection is cut into query, key and value."""
    renamed = {}
    for name, tensor in state.items():
        if joined := _JOINED.match(name):
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"encoder.layers.{joined[1]}.self_attn.{part}_proj.{joined[2]}"] = rows
            continue
        for pattern, theirs in _CLIP_NAMES:
            name = re.sub(pattern, theirs, name)
        renamed[name] = tensor
    return renamed


def _clip_processor(key: str, encoder: VisionEncoder) -> CLIPImageProcessor:
    visual: Any = encoder.model
    settings, pixels = visual.preprocess_cfg, encoder.prepare.pixels
    height, width = encoder.prepare.size
    mode = settings.get("resize_mode") or "shortest"
    if mode == "longest" or height != width:
        raise RecipeError(
            f"{key}.path", f"transformers' CLIP has no preprocessing like open_clip's {mode} to {height}×{width}"
        )
    cropped = {"size": {"shortest_edge": height}, "crop_size": {"height": height, "width": width}}
    squashed = {"size": {"height": height, "width": width}, "do_center_crop": False}
    return CLIPImageProcessor(
        **(cropped if mode == "shortest" else squashed),
        resample=Image.Resampling[pixels.interpolation.upper()],
        image_mean=list(pixels.mean),
        image_std=list(pixels.std),
    )


def _padding(processor: Any) -> LlavaImageProcessor:
    """LLaVA-1.5's: the same, after the image is padded to a square with its mean colour."""
    kept = ("size", "crop_size", "do_center_crop", "do_resize", "resample", "do_normalize", "image_mean", "image_std")
    settings = processor.to_dict()
    options = {name: settings[name] for name in kept if settings.get(name) is not None}
    return LlavaImageProcessor(**{"do_center_crop": False} | options, do_pad=True)
