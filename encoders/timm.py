"""Vision transformers of timm.

An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale
Alexey Dosovitskiy, Lucas Beyer, Alexander Kolesnikov and others, arXiv 2010.11929 (ViT)

A hidden state counts as in transformers: 0 enters the first block, -1 leaves the last one, before the final norm. The
pooled output is what timm gives a classifier.
"""

from pathlib import Path

import timm
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn

from mmbridge.encoders.config import TimmConfig
from mmbridge.encoders.fitting import ImageFit
from mmbridge.encoders.preprocessing import Pixels
from mmbridge.encoders.vision import Tower, VisionEncoder
from mmbridge.errors import RecipeError
from mmbridge.frozen import locate, quietly, reading, safetensors_in


class TimmEncoder(VisionEncoder):
    """The vision transformer of a timm folder, one whose ``config.json`` names an architecture of timm."""

    def __init__(self, config: TimmConfig) -> None:
        super().__init__(config, _tower(locate(config.path, config.revision)))

    def run(self, inputs: Tensor) -> None:
        self.model.forward_features(inputs)  # type: ignore[operator]

    def pool(self, inputs: Tensor) -> Tensor | None:
        pooled: Tensor = self.model(inputs)  # the classifier has been taken off
        return pooled


def _tower(folder: Path) -> Tower:
    files = {file.name: file for file in safetensors_in(folder)}
    weights = files.get("model.safetensors") or next(iter(files.values()))
    with reading(folder, "timm"), quietly():
        # timm would look for a pickle before safetensors of other names, hence the file; it loads strictly only with
        # the classifier in place, which is taken off afterwards
        source = {"source": "", "file": str(weights), "custom_load": False}
        model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True, pretrained_cfg_overlay=source)
        model.reset_classifier(0)  # type: ignore[operator]
        data = resolve_model_data_config(model)
        own = create_transform(**data, is_training=False)
    if not hasattr(model, "blocks"):
        raise RecipeError(folder, f"expected a vision transformer, found {type(model).__name__}")
    norm = "norm" if hasattr(model, "norm") else ""
    pixels = Pixels(tuple(data["mean"]), tuple(data["std"]), data["interpolation"], white=1)
    return Tower(folder, "timm", model, "blocks", norm, own, ImageFit.of(own), pixels)
