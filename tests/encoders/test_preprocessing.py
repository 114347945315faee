"""Padding to a square, against transformers' LlavaImageProcessor and plain NumPy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from mmbridge.encoders.config import OpenCLIPConfig, TimmConfig, TransformersConfig
from mmbridge.encoders.fitting import expand_to_square
from mmbridge.encoders.preprocessing import Pixels
from mmbridge.errors import RecipeError
from tests.encoders.models import picture, seen

Folders = Callable[[str], Path]

SIZES = [(50, 40), (40, 50), (33, 33), (31, 64), (7, 100), (100, 1)]


@pytest.mark.proof("transformers", against="transformers' LlavaImageProcessor with do_pad")
@pytest.mark.parametrize("family", ["clip", "siglip"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pad_is_llavas(folder_of: Folders, family: str, size: tuple[int, int]) -> None:
    own: Any = transformers.AutoImageProcessor.from_pretrained(folder_of(family))  # type: ignore[no-untyped-call]
    colours = {"image_mean": own.image_mean, "image_std": own.image_std, "resample": own.resample}
    square = {"height": 32, "width": 32}
    llava = transformers.LlavaImageProcessor(size={"shortest_edge": 32}, crop_size=square, do_pad=True, **colours)
    built = TransformersConfig(path=str(folder_of(family)), aspect="pad").build()
    theirs = llava(picture(*size), return_tensors="pt")["pixel_values"]
    assert torch.equal(seen(built, picture(*size)), theirs)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_square_in_numpy(size: tuple[int, int]) -> None:
    image, (width, height) = np.asarray(picture(*size)), size
    side = max(size)
    wanted = np.empty((side, side, 3), np.uint8)
    wanted[:] = (122, 116, 104)
    top, left = (side - height) // 2, (side - width) // 2
    wanted[top : top + height, left : left + width] = image
    np.testing.assert_array_equal(np.asarray(expand_to_square(picture(*size), (122, 116, 104))), wanted)


@pytest.mark.parametrize("family", ["timm_vit", "open_clip"])
def test_pad_then_the_librarys_own(folder_of: Folders, family: str) -> None:
    config = TimmConfig if family == "timm_vit" else OpenCLIPConfig
    padded = config(path=str(folder_of(family)), aspect="pad").build()
    own = config(path=str(folder_of(family))).build()
    square = expand_to_square(picture(60, 30), padded.prepare.pixels.mean_colour)
    assert torch.equal(padded.prepare(picture(60, 30)).inputs, own.prepare(square).inputs)
    assert not torch.equal(padded.prepare(picture(60, 30)).inputs, own.prepare(picture(60, 30)).inputs)


def test_the_mean_colour_is_llavas() -> None:
    """CLIP's mean in 0 to 255, cut and not rounded: 122.77 is 122."""
    pixels = Pixels((0.48145466, 0.4578275, 0.40821073), (1.0, 1.0, 1.0), "bicubic", white=255)
    assert pixels.mean_colour == (122, 116, 104)


def test_preprocessing_that_tiles_must_be_asked_for(folder_of: Folders, tmp_path: Path) -> None:
    """A LLaVA-NeXT folder's own processor gives tiles; its tower is then used with aspect tiles."""
    for file in folder_of("llava").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    square, pinpoints = {"height": 32, "width": 32}, [[32, 64], [64, 32]]
    processor = transformers.LlavaNextImageProcessor(
        size={"shortest_edge": 32}, crop_size=square, image_grid_pinpoints=pinpoints
    )
    processor.save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="its preprocessing cuts images into tiles; set aspect to tiles"):
        TransformersConfig(path=str(tmp_path)).build()
    built = TransformersConfig(path=str(tmp_path), aspect="tiles", pinpoints=((32, 64), (64, 32))).build()
    theirs = processor(picture(50, 40), return_tensors="pt")["pixel_values"][0]
    assert torch.equal(seen(built, picture(50, 40)), theirs)
