"""The part of a library's preprocessing that ends in whole grey levels: a picture fitted to an encoder's input.

What follows it, scaling and normalising, is the same for every pixel and is done on the encoder's device
(``Pixels.normalise``), so that workers, queues and copies carry a byte a value. Which fit a library's preprocessing
has is read from its parts; whether that is all there is to it is tried (``preprocessing.prepared_by``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import transforms  # type: ignore[import-untyped]
from torchvision.transforms.v2 import InterpolationMode  # type: ignore[import-untyped]
from torchvision.transforms.v2 import functional as pixels

from mmbridge.encoders.base import Picture

Fit = Callable[[Picture], Tensor]
"""A picture in RGB to (3, h, w), uint8, perhaps a part of something larger in memory."""


def as_tensor(picture: Picture) -> Tensor:
    """(3, H, W), uint8, the channels of a pixel side by side in memory: so they need no copy, and resize sooner."""
    values = np.array(picture) if isinstance(picture, Image.Image) else picture
    return torch.from_numpy(values).permute(2, 0, 1)


def as_image(picture: Picture) -> Image.Image:
    return picture if isinstance(picture, Image.Image) else Image.fromarray(picture)


def expand_to_square(picture: Picture, colour: tuple[int, ...]) -> NDArray[np.uint8]:
    """The picture in the middle of a square as large as its longer side, the rest in one colour: (S, S, 3)."""
    values = np.asarray(picture)
    height, width = values.shape[:2]
    side = max(height, width)
    square = np.empty((side, side, 3), np.uint8)
    square.reshape(side, -1)[:] = np.tile(np.array(colour, np.uint8), side)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = values
    return square


@dataclass(frozen=True, slots=True)
class TensorFit:
    """Resizes and crops as the processors of transformers do that work on tensors.

    ``size`` is the shorter side's length alone, or height and width; ``crop`` the height and width that are left.
    """

    size: tuple[int, ...]
    crop: tuple[int, int]
    interpolation: str

    @classmethod
    def of(cls, processor: Any, interpolation: str) -> Self | None:
        """The fit of a processor that resizes and may cut out the middle; ``None`` if its settings say otherwise."""
        cropped = getattr(processor, "do_center_crop", False)
        size = dict(getattr(processor, "size", None) or {})
        crop = dict(getattr(processor, "crop_size", None) or {}) if cropped else size
        if not getattr(processor, "do_resize", False) or set(crop) != {"height", "width"}:
            return None
        if set(size) not in ({"shortest_edge"}, {"height", "width"}):
            return None
        sides = (size["shortest_edge"],) if "shortest_edge" in size else (size["height"], size["width"])
        if crop["height"] > sides[0] or crop["width"] > sides[-1]:
            return None  # it would pad
        return cls(sides, (crop["height"], crop["width"]), interpolation)

    def __call__(self, picture: Picture) -> Tensor:
        mode = InterpolationMode(self.interpolation)
        image = pixels.resize(as_tensor(picture), list(self.size), interpolation=mode, antialias=True)
        top, left = ((have - want) // 2 for have, want in zip(image.shape[-2:], self.crop, strict=True))
        cropped: Tensor = image[:, top : top + self.crop[0], left : left + self.crop[1]]
        return cropped


@dataclass(frozen=True, slots=True)
class ImageFit:
    """The steps of torchvision's, timm's and open_clip's transforms that work on Pillow's images."""

    steps: tuple[Callable[[Image.Image], Image.Image], ...]

    @classmethod
    def of(cls, transform: Any) -> Self | None:
        """What a transform does before its last two steps, if those are torchvision's to tensor and normalise."""
        steps = tuple(getattr(transform, "transforms", ()))
        last = (transforms.ToTensor, transforms.Normalize)
        if len(steps) < 2 or not all(map(isinstance, steps[-2:], last)):
            return None
        return cls(steps[:-2])

    def __call__(self, picture: Picture) -> Tensor:
        image = as_image(picture)
        for step in self.steps:
            image = step(image)
        return as_tensor(image)
