"""AnyRes: an image as a thumbnail and the tiles of an enlarged copy.

LLaVA-NeXT: Improved reasoning, OCR, and world knowledge
Haotian Liu, Chunyuan Li, Yuheng Li, Bo Li, Yuanhan Zhang, Sheng Shen, Yong Jae Lee (2024)
https://llava-vl.github.io/blog/2024-01-30-llava-next/, which has no arXiv id; the numbers are those of transformers'
``LlavaNextImageProcessor``.

Of the shapes allowed, the one that keeps most of the image's pixels is chosen, and among equals the one that wastes
fewest. The image is enlarged into it with its proportions kept, centred on black, and cut row by row. The thumbnail
is the whole image squeezed into one tile; it comes first.

differs from transformers: the thumbnail and the tiles are cut at the encoder's input size. transformers resizes and
crops each tile once more, which changes nothing where the two sizes are the same, as in every published model, and
would cut away the tiles' borders where they are not.
"""

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode  # type: ignore[import-untyped]
from torchvision.transforms.v2 import functional as pixels
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension

from mmbridge.encoders.base import Tiling

Size = tuple[int, int]  # height and width

_SHAPES = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))


def default_pinpoints(size: Size) -> tuple[Size, ...]:
    """LLaVA-NeXT's five shapes, in pixels, for an encoder whose input has this size."""
    return tuple((rows * size[0], columns * size[1]) for rows, columns in _SHAPES)


def cut(image: Tensor, size: Size, pinpoints: tuple[Size, ...], interpolation: str) -> tuple[Tensor, Tiling]:
    """Thumbnail and tiles of one image.

    Args:
        image: (C, H, W), uint8.
        size: height h and width w of a tile.
        pinpoints: the heights and widths the tiles may cover together, multiples of ``size``.
        interpolation: a name torchvision knows, such as ``bicubic``.

    Returns:
        (1 + rows × columns, C, h, w), uint8, and the tiling.
    """
    mode = InterpolationMode(interpolation)
    height, width = image.shape[-2:]
    tiling = tiled(height, width, size, pinpoints)
    rows, columns = tiling.rows, tiling.columns
    target = rows * size[0], columns * size[1]
    fitted = get_patch_output_size(image, target, ChannelDimension.FIRST)  # type: ignore[no-untyped-call]
    enlarged = pixels.resize(image, list(fitted), interpolation=mode, antialias=True)
    left, right = _halves(target[1] - fitted[1])
    top, bottom = _halves(target[0] - fitted[0])
    canvas = pixels.pad(enlarged, [left, top, right, bottom])
    tiles = canvas.unflatten(2, (columns, size[1])).unflatten(1, (rows, size[0]))  # (C, rows, h, columns, w)
    tiles = tiles.permute(1, 3, 0, 2, 4).flatten(0, 1)  # (rows × columns, C, h, w)
    thumbnail = pixels.resize(image, list(size), interpolation=mode, antialias=True)
    return torch.cat([thumbnail[None], tiles]), tiling


def tiled(height: int, width: int, size: Size, pinpoints: tuple[Size, ...]) -> Tiling:
    """How an image of so many pixels is cut."""
    target = select_best_resolution((height, width), list(pinpoints))
    return Tiling(target[0] // size[0], target[1] // size[1], height, width)


def _halves(space: int) -> tuple[int, int]:
    """The odd pixel goes after the image."""
    return space // 2, space - space // 2
