"""From an image to an encoder's input, on the CPU and without a model, so that loader workers can carry it.

The encoder's own preprocessing is the library's own object, or its fit alone where that and ``Pixels.normalise``
together give the same to the bit. Padding to a square comes from

Improved Baselines with Visual Instruction Tuning
Haotian Liu, Chunyuan Li, Yuheng Li, Yong Jae Lee, arXiv 2310.03744, released code's ``expand2square``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmbridge.encoders.base import Picture, Tiling, Views
from mmbridge.encoders.config import Aspect, VisionConfig
from mmbridge.encoders.fitting import Fit, as_image, as_tensor, expand_to_square
from mmbridge.encoders.tiles import Size, cut, default_pinpoints, tiled
from mmbridge.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Pixels:
    """What a library says about an encoder's pixels.

    ``mean`` and ``std`` per channel, of values in 0 to 1; ``interpolation`` as torchvision names it; ``white`` is what
    the library calls the brightest value when it normalises: 255 in transformers, 1 in torchvision, which round
    differently.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    white: Literal[1, 255]

    def normalise(self, images: Tensor) -> Tensor:
        """(V, C, H, W), uint8 of any layout in memory, to contiguous float32 on the same device."""
        values = images.to(torch.float32, memory_format=torch.contiguous_format)
        if self.white == 1:
            values.div_(images.new_tensor(255.0, dtype=torch.float32))  # by a plain number, a GPU would multiply
        mean, std = (images.new_tensor(each, dtype=torch.float32) * self.white for each in (self.mean, self.std))
        return values.sub_(mean[:, None, None]).div_(std[:, None, None])

    @property
    def mean_colour(self) -> tuple[int, ...]:
        return tuple(int(255 * value) for value in self.mean)


@dataclass(frozen=True, slots=True)
class PicturePreparation:
    """Image to views for one encoder. It can be pickled and holds no weights.

    ``fit`` is what ``own`` does before it normalises, ``None`` where that is not known.
    """

    own: Callable[[Image.Image], Tensor]
    fit: Fit | None
    pixels: Pixels
    size: Size
    aspect: Aspect
    pinpoints: tuple[Size, ...]

    def tiling(self, width: int, height: int) -> Tiling | None:
        """How an image of so many pixels will be cut, before it is opened."""
        return tiled(height, width, self.size, self.pinpoints) if self.aspect == "tiles" else None

    @property
    def most_views(self) -> int:
        """How many views one image can become."""
        if self.aspect != "tiles":
            return 1
        return 1 + max(height // self.size[0] * (width // self.size[1]) for height, width in self.pinpoints)

    def __call__(self, picture: Picture) -> Views:
        """A picture of any size; the result's inputs are (V, C, h, w) with V = 1 unless tiled, uint8 or float32."""
        if isinstance(picture, Image.Image) and picture.mode != "RGB":
            picture = picture.convert("RGB")
        if self.aspect == "tiles":
            return Views(*cut(as_tensor(picture), self.size, self.pinpoints, self.pixels.interpolation))
        if self.aspect == "pad":
            picture = expand_to_square(picture, self.pixels.mean_colour)
        if self.fit is None:
            return Views(self.own(as_image(picture))[None].float())
        # a copy, or what was cut off would stay in memory; channels last, or joining views would reorder every byte
        return Views(self.fit(picture)[None].clone(memory_format=torch.channels_last))


def prepared_by(
    own: Callable[[Image.Image], Tensor], fit: Fit | None, pixels: Pixels, config: VisionConfig, folder: Path
) -> PicturePreparation:
    """The preparation a recipe asks for, tried on small images of noise.

    Args:
        own: a library's preprocessing as it is.
        fit: what it may be before it normalises; left out of the result where the two together are not the same.

    Raises:
        RecipeError: the encoder's own preprocessing gives no input of one size, or pinpoints do not fit it.
    """
    small = [_noise(width, height) for width, height in ((63, 47), (48, 64))]
    shapes = [tuple(own(image).shape) for image in small]
    size = (shapes[0][-2], shapes[0][-1])
    if len(shapes[0]) == 4 and config.aspect != "tiles":
        raise RecipeError(folder, "its preprocessing cuts images into tiles", "set aspect to tiles")
    if shapes[0][-3:] != shapes[1][-3:] or len(shapes[0]) < 3:
        found = " and ".join("×".join(map(str, shape)) for shape in shapes)
        problem = f"expected preprocessing to images of one size, found {found}"
        raise RecipeError(folder, problem, "name an encoder of fixed input size")
    pinpoints = config.pinpoints or default_pinpoints(size)
    for height, width in pinpoints:
        if height <= 0 or width <= 0 or height % size[0] or width % size[1]:
            problem = f"expected pinpoints in multiples of the encoder's {size[0]}×{size[1]}, found {height}×{width}"
            raise RecipeError(folder, problem)
    larger = _noise(2 * size[1] + 3, size[0] + 5)
    if fit is not None and not all(_agree(own, fit, pixels, image) for image in (*small, larger)):
        fit = None
    return PicturePreparation(own, fit, pixels, size, config.aspect, pinpoints)


def _agree(own: Callable[[Image.Image], Tensor], fit: Fit, pixels: Pixels, image: Image.Image) -> bool:
    wanted, found = own(image), pixels.normalise(fit(image)[None])[0]
    return wanted.dtype == found.dtype and torch.equal(wanted, found)


def _noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
