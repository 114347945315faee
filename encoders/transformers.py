"""Vision transformers of transformers, alone or as the tower of a larger checkpoint.

Held against the library: CLIP, SigLIP (and SigLIP 2 of fixed resolution, which is the same class), DINOv2 with and
without registers, ViT-MAE, and EVA ViT-g as the vision model of BLIP-2 and InstructBLIP. A hidden state is the one
``hidden_states`` lists; -1 leaves the last block, before the final norm, also where ``last_hidden_state`` is normed.
The pooled output is ``pooler_output``, which ViT-MAE has not.

arXiv 2103.00020 (CLIP), arXiv 2303.15343 (SigLIP), arXiv 2502.14786 (SigLIP 2), arXiv 2304.07193 (DINOv2),
arXiv 2211.07636 (EVA), arXiv 2301.12597 (BLIP-2)

Masked Autoencoders Are Scalable Vision Learners
Kaiming He, Xinlei Chen, Saining Xie, Yanghao Li, Piotr Dollár, Ross Girshick, arXiv 2111.06377
differs from the paper: at inference nothing is masked and patches stay in order; transformers' class shuffles them at
random even then.

Images are prepared as the folder's own processor does it in its torchvision form. That is what transformers' users get
by default, so that both see the same pixels to the bit; from the PIL form it differs by at most one grey level where it
resizes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode  # type: ignore[import-untyped]
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    Blip2VisionConfig,
    Blip2VisionModel,
    InstructBlipVisionConfig,
    InstructBlipVisionModel,
    PretrainedConfig,
    SiglipVisionModel,
    ViTMAEModel,
)
from transformers.image_utils import pil_torch_interpolation_mapping

from mmbridge.encoders.config import TransformersConfig
from mmbridge.encoders.fitting import TensorFit
from mmbridge.encoders.preprocessing import Pixels
from mmbridge.encoders.vision import Tower, VisionEncoder
from mmbridge.errors import RecipeError
from mmbridge.frozen import check_complete, locate, quietly, reading, safetensors_in

# the vision models of BLIP-2 and InstructBLIP are those here that transformers' own Auto classes leave out
AutoConfig.register("blip_2_vision_model", Blip2VisionConfig, exist_ok=True)
AutoModel.register(Blip2VisionConfig, Blip2VisionModel, exist_ok=True)
AutoConfig.register("instructblip_vision_model", InstructBlipVisionConfig, exist_ok=True)
AutoModel.register(InstructBlipVisionConfig, InstructBlipVisionModel, exist_ok=True)

# where CLIP, SigLIP, BLIP-2 and LLaVA keep their vision tower, in today's and in older checkpoints
_TOWER_PREFIX = r"^(?:model\.)?(?:vision_tower\.vision_model|vision_tower|vision_model)\."
_NORMS = ("post_layernorm", "layernorm", "norm")


class TransformersEncoder(VisionEncoder):
    """A vision transformer of transformers."""

    def __init__(self, config: TransformersConfig) -> None:
        tower = _tower(locate(config.path, config.revision))
        if isinstance(tower.model, SiglipVisionModel) and config.tokens != "pooled":
            tower.model.use_head = False  # its pooling attends to every token: not for nothing
        super().__init__(config, tower)

    def run(self, inputs: Tensor) -> None:
        self._output(inputs)

    def pool(self, inputs: Tensor) -> Tensor | None:
        return getattr(self._output(inputs), "pooler_output", None)

    def _output(self, inputs: Tensor) -> Any:
        if not isinstance(self.model, ViTMAEModel):
            return self.model(pixel_values=inputs)
        patches = self.model.embeddings.patch_embeddings.num_patches
        rising = torch.arange(patches, device=inputs.device).expand(len(inputs), -1)  # sorts into the order it is in
        return self.model(pixel_values=inputs, noise=rising)


@dataclass(frozen=True, slots=True)
class Processor:
    """A folder's own image processor: image to (C, H, W), or (V, C, H, W) from one that tiles."""

    processor: Any

    def __call__(self, image: Image.Image) -> Tensor:
        pixels: Tensor = self.processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels


def _tower(folder: Path) -> Tower:
    safetensors_in(folder)
    with reading(folder, "transformers"), quietly():
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        whole = AutoConfig.from_pretrained(folder, **options)
        config: PretrainedConfig = getattr(whole, "vision_config", whole)
        if hasattr(config, "mask_ratio"):
            config.mask_ratio = 0.0
        if config is not whole:
            options["key_mapping"] = {_TOWER_PREFIX: ""}
        options |= {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
        model, report = AutoModel.from_pretrained(folder, config=config, dtype=torch.float32, **options)
        check_complete(folder, report)
        processor = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            folder, backend="torchvision", local_files_only=True, trust_remote_code=False
        )
    norm = next((name for name in _NORMS if hasattr(model, name)), "")
    pixels = _pixels(processor)
    own, fit = Processor(processor), TensorFit.of(processor, pixels.interpolation)
    return Tower(folder, "transformers", model, _blocks(folder, model), norm, own, fit, pixels)


def _blocks(folder: Path, model: nn.Module) -> str:
    """The name of the one list of as many modules as the configuration counts layers."""
    count = getattr(model.config, "num_hidden_layers", None)
    lists: list[str] = [
        name for name, part in model.named_modules() if isinstance(part, nn.ModuleList) and len(part) == count
    ]
    if len(lists) != 1:
        raise RecipeError(folder, f"expected a vision transformer, found {type(model).__name__}")
    return lists[0]


def _pixels(processor: Any) -> Pixels:
    normed = processor.do_normalize
    mean, std = (processor.image_mean, processor.image_std) if normed else ((0.0,) * 3, (1.0,) * 3)
    mode = pil_torch_interpolation_mapping.get(processor.resample, InterpolationMode.BICUBIC)
    # torchvision resizes tensors in every way PIL knows but Lanczos, for which transformers takes bicubic too
    known = InterpolationMode.BICUBIC if mode is InterpolationMode.LANCZOS else mode
    return Pixels(tuple(mean), tuple(std), known.value, white=255)
