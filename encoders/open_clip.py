"""Vision towers of open_clip, native or carried by timm.

Reproducible scaling laws for contrastive language-image learning
Mehdi Cherti, Romain Beaumont, Ross Wightman, Mitchell Wortsman, Gabriel Ilharco, Cade Gordon, Christoph Schuhmann,
Ludwig Schmidt, Jenia Jitsev, arXiv 2212.07143 (OpenCLIP)

A hidden state counts as in transformers' CLIP: 0 enters the first block, after ``ln_pre``; -1 leaves the last one,
before ``ln_post``. The pooled output is open_clip's image embedding, projected and not yet of unit length.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor, nn

from mmbridge.encoders.config import OpenCLIPConfig
from mmbridge.encoders.fitting import ImageFit
from mmbridge.encoders.preprocessing import Pixels
from mmbridge.encoders.vision import Tower, VisionEncoder
from mmbridge.errors import RecipeError
from mmbridge.frozen import locate, quietly, reading, safetensors_in


class OpenCLIPEncoder(VisionEncoder):
    """The vision tower of an open_clip folder, one with an ``open_clip_config.json``."""

    def __init__(self, config: OpenCLIPConfig) -> None:
        super().__init__(config, _tower(locate(config.path, config.revision)))

    def run(self, inputs: Tensor) -> None:
        only_blocks = {"indices": 1, "intermediates_only": True, "output_fmt": "NLC"}
        with _plain_attention():
            self.model.forward_intermediates(inputs, **only_blocks)  # type: ignore[operator]

    def pool(self, inputs: Tensor) -> Tensor | None:
        with _plain_attention():
            output = self.model(inputs)
        pooled: Tensor = output[0] if isinstance(output, tuple) else output  # CoCa's gives its tokens as well
        return pooled


def load_open_clip(folder: Path) -> nn.Module:
    """The whole model of an open_clip folder, its weights from safetensors.

    Raises:
        RecipeError: the folder is not open_clip's, or has no safetensors.
    """
    files = {file.name: file for file in safetensors_in(folder)}
    weights = files.get("open_clip_model.safetensors") or next(iter(files.values()))
    with reading(folder, "open_clip"), quietly():
        model: nn.Module = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
        open_clip.load_checkpoint(model, str(weights))
    return model


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Keeps torch.nn.MultiheadAttention off its fused inference path, which on a CPU forms the whole attention map,
    is no faster, and whose FLOPs torch's counter does not see."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _tower(folder: Path) -> Tower:
    visual = load_open_clip(folder).visual
    assert isinstance(visual, nn.Module)
    names = {name for name, _ in visual.named_modules()}
    for blocks, norm in (("transformer.resblocks", "ln_post"), ("trunk.blocks", "trunk.norm")):
        if blocks in names:
            preprocess = PreprocessCfg(**visual.preprocess_cfg)  # type: ignore[arg-type]
            pixels = Pixels(tuple(preprocess.mean), tuple(preprocess.std), preprocess.interpolation, white=1)
            own = image_transform_v2(preprocess, is_train=False)
            return Tower(folder, "open_clip", visual, blocks, norm, own, ImageFit.of(own), pixels)
    raise RecipeError(folder, f"expected a vision transformer, found {type(visual).__name__}")
