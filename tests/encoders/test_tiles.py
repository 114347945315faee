"""AnyRes tiles against transformers' LlavaNextImageProcessor, pixel for pixel."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from torchvision.transforms import functional  # type: ignore[import-untyped]
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape

from mmbridge.encoders.base import Tiling
from mmbridge.encoders.config import OpenCLIPConfig, TimmConfig, TransformersConfig
from mmbridge.errors import RecipeError
from tests.encoders.models import SHORTEST, picture, seen

Folders = Callable[[str], Path]

FIVE = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]
SIZES = [(32, 32), (50, 40), (40, 50), (90, 30), (30, 91), (64, 64), (65, 33), (7, 100), (100, 3), (13, 11), (200, 201)]


def library(folder: Path, size: tuple[int, int], pinpoints: list[list[int]]) -> torch.Tensor:
    """(V, C, 32, 32) from transformers, in the colours of the folder's own processor."""
    own: Any = transformers.AutoImageProcessor.from_pretrained(folder)  # type: ignore[no-untyped-call]
    processor = transformers.LlavaNextImageProcessor(
        size={"shortest_edge": 32},
        crop_size={"height": 32, "width": 32},
        image_grid_pinpoints=pinpoints,
        **{"image_mean": own.image_mean, "image_std": own.image_std, "resample": own.resample},
    )
    pixels: torch.Tensor = processor(picture(*size), return_tensors="pt")["pixel_values"][0]
    return pixels


@pytest.mark.proof("transformers", against="transformers' LlavaNextImageProcessor")
@pytest.mark.parametrize("family", ["clip", "siglip"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tiles_are_llava_nexts(folder_of: Folders, family: str, size: tuple[int, int]) -> None:
    built = TransformersConfig(path=str(folder_of(family)), aspect="tiles").build()
    views = built.prepare(picture(*size))
    assert torch.equal(seen(built, picture(*size)), library(folder_of(family), size, FIVE))
    width, height = size
    rows, columns = get_anyres_image_grid_shape((height, width), FIVE, 32)  # type: ignore[no-untyped-call]
    assert views.tiling == Tiling(rows, columns, height, width)


@pytest.mark.proof("transformers", against="transformers' LlavaNextImageProcessor with other pinpoints")
def test_other_pinpoints(folder_of: Folders) -> None:
    pinpoints = ((64, 96), (32, 32))
    built = TransformersConfig(path=str(folder_of("clip")), aspect="tiles", pinpoints=pinpoints).build()
    for size in SIZES:
        theirs = library(folder_of("clip"), size, [list(pinpoint) for pinpoint in pinpoints])
        assert torch.equal(seen(built, picture(*size)), theirs)


def test_tiles_of_the_nearest_pixels(folder_of: Folders, tmp_path: Path) -> None:
    for file in folder_of("clip").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    transformers.CLIPImageProcessor(resample=Image.Resampling.NEAREST, **SHORTEST).save_pretrained(tmp_path)
    built = TransformersConfig(path=str(tmp_path), aspect="tiles").build()
    for size in SIZES:
        assert torch.equal(seen(built, picture(*size)), library(tmp_path, size, FIVE))


@pytest.mark.parametrize("family", ["timm_vit", "open_clip"])
def test_tiles_of_the_other_libraries(folder_of: Folders, family: str) -> None:
    """An image as large as its tiling needs no resizing: its tiles are its parts, normalised as torchvision does."""
    config = TimmConfig if family == "timm_vit" else OpenCLIPConfig
    path = str(folder_of(family))
    tiled = config(path=path, aspect="tiles", pinpoints=((64, 96),)).build()
    image, colours = picture(96, 64), tiled.prepare.pixels
    assert tiled.prepare(image).tiling == Tiling(2, 3, 64, 96)
    for index, tile in enumerate(seen(tiled, image)[1:]):
        row, column = divmod(index, 3)
        part = functional.to_tensor(image.crop((32 * column, 32 * row, 32 * column + 32, 32 * row + 32)))
        assert torch.equal(tile, functional.normalize(part, colours.mean, colours.std))


@pytest.mark.parametrize("pinpoint", [(48, 32), (0, 32), (32, -32)])
def test_pinpoints_that_do_not_fit(folder_of: Folders, pinpoint: tuple[int, int]) -> None:
    with pytest.raises(RecipeError, match="expected pinpoints in multiples of the encoder's 32×32"):
        TransformersConfig(path=str(folder_of("clip")), aspect="tiles", pinpoints=(pinpoint,)).build()
