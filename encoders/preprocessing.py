"""From an image to an encoder's input, on the CPU and without a model, so that loader workers can carry it.

The encoder's own preprocessing is the library's own object, untouched. Padding to a square comes from

Improved Baselines with Visual Instruction Tuning
Haotian Liu, Chunyuan Li, Yuheng Li, Yong Jae Lee, arXiv 2310.03744, released code's ``expand2square``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmbridge.encoders.base import Tiling, Views
from mmbridge.encoders.config import Aspect, VisionConfig
from mmbridge.encoders.tiles import Size, cut, default_pinpoints, tiled
from mmbridge.errors import RecipeError

PREPARATION = 1
"""Counts what changes the views that ``Preparation`` makes of an image: features kept from before are stale then."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """What a library says about an encoder's pixels.

    ``mean`` and ``std`` per channel, of values in 0 to 1; ``interpolation`` as torchvision names it.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str

    def normalise(self, images: Tensor) -> Tensor:
        """(V, C, H, W), uint8 to float32. In steps of 1/255, as transformers does it, so that both round alike."""
        mean = torch.tensor(self.mean) * 255.0
        std = torch.tensor(self.std) * 255.0
        return images.float().sub_(mean[:, None, None]).div_(std[:, None, None])

    @property
    def mean_colour(self) -> tuple[int, ...]:
        return tuple(int(255 * value) for value in self.mean)


@dataclass(frozen=True, slots=True)
class Preparation:
    """Image to views for one encoder. It can be pickled and holds no weights."""

    own: Callable[[Image.Image], Tensor]
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

    def __call__(self, image: Image.Image) -> Views:
        """An image of any size and mode; the result's inputs are (V, C, h, w), float32, with V = 1 unless tiled."""
        if image.mode != "RGB":
            image = image.convert("RGB")
        if self.aspect == "tiles":
            raw = torch.from_numpy(np.array(image)).permute(2, 0, 1)
            views, tiling = cut(raw, self.size, self.pinpoints, self.pixels.interpolation)
            return Views(self.pixels.normalise(views), tiling)
        if self.aspect == "pad":
            image = expand_to_square(image, self.pixels.mean_colour)
        return Views(self.own(image)[None])


def expand_to_square(image: Image.Image, colour: tuple[int, ...]) -> Image.Image:
    """The image in the middle of a square as large as its longer side, the rest in one colour."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new(image.mode, (side, side), colour)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def prepared_by(
    own: Callable[[Image.Image], Tensor], pixels: Pixels, config: VisionConfig, folder: Path
) -> Preparation:
    """The preparation a recipe asks for, tried on two blank images.

    Raises:
        RecipeError: the encoder's own preprocessing gives no input of one size, or pinpoints do not fit it.
    """
    shapes = [tuple(own(Image.new("RGB", size)).shape) for size in ((64, 48), (48, 64))]
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
    return Preparation(own, pixels, size, config.aspect, pinpoints)
