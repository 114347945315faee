"""What reaches a model, by way of grey levels where that changes nothing: to the bit what its library gives it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from torch import Tensor
from torchvision import transforms  # type: ignore[import-untyped]

from mmbridge.encoders.config import OpenCLIPConfig, TimmConfig, TransformersConfig, VisionConfig
from mmbridge.encoders.fitting import ImageFit, TensorFit
from mmbridge.encoders.preprocessing import Pixels, prepared_by
from mmbridge.encoders.vision import VisionEncoder
from tests.encoders.models import SHORTEST, SQUARE, picture, seen
from tests.llava.test_tower import encoder as open_clip_encoder

Folders = Callable[[str], Path]

SIZES = [(32, 32), (33, 31), (50, 40), (40, 51), (7, 100), (90, 6), (201, 200)]

PLAIN: dict[str, dict[str, Any]] = {
    "shortest edge": {},
    "no crop": {"size": SQUARE, "do_center_crop": False},
    "a smaller crop": {"size": {"shortest_edge": 41}},
    "crop of what was squeezed": {"size": {"height": 40, "width": 37}},
    "bilinear": {"resample": Image.Resampling.BILINEAR},
    "Lanczos": {"resample": Image.Resampling.LANCZOS},
    "nearest": {"resample": Image.Resampling.NEAREST},
}
OTHER: dict[str, dict[str, Any]] = {
    "as it is": {"do_rescale": False, "do_normalize": False},
    "not normalised": {"do_normalize": False},
    "not scaled": {"do_rescale": False},
    "scaled otherwise": {"rescale_factor": 1 / 127.5},
    "padded": {"size": {"shortest_edge": 20}},
    "longest edge": {"size": {"shortest_edge": 32, "longest_edge": 64}},
    "not resized": {"do_resize": False},
}


def copied(folder: Path, target: Path, processor: Any) -> Path:
    """The same model with another processor."""
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    processor.save_pretrained(target)
    return target


def assert_seen(built: VisionEncoder, library: Callable[[Image.Image], Tensor]) -> None:
    """Images and arrays alike, in one piece of memory, as the library's own come."""
    for size in SIZES:
        image = picture(*size)
        for given in (image, np.array(image)):
            found = seen(built, given)
            assert found.is_contiguous()
            assert torch.equal(found[0], library(image)), size


@pytest.mark.parametrize("kind", [*PLAIN, *OTHER])
def test_processors_of_transformers(folder_of: Folders, tmp_path: Path, kind: str) -> None:
    processor: Any = transformers.CLIPImageProcessor(**{**SHORTEST, **PLAIN.get(kind, {}), **OTHER.get(kind, {})})
    built = TransformersConfig(path=str(copied(folder_of("clip"), tmp_path, processor))).build()
    assert isinstance(built.prepare.fit, TensorFit if kind in PLAIN else type(None))
    assert built.prepare(picture(40, 50)).inputs.dtype == (torch.uint8 if kind in PLAIN else torch.float32)
    assert_seen(built, lambda image: processor(images=image, return_tensors="pt")["pixel_values"][0].float())


@pytest.mark.parametrize(
    "processor",
    [
        transformers.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.8),
        transformers.LlavaImageProcessor(**SHORTEST, do_pad=True),
        transformers.EfficientNetImageProcessor(size=SQUARE, rescale_offset=True),
    ],
    ids=lambda processor: type(processor).__name__,
)
def test_processors_that_do_more_than_they_seem_to(folder_of: Folders, tmp_path: Path, processor: Any) -> None:
    """Their settings read like those of a plain one; they are used whole."""
    built = TransformersConfig(path=str(copied(folder_of("clip"), tmp_path, processor))).build()
    assert built.prepare.fit is None
    assert_seen(built, lambda image: processor(images=image, return_tensors="pt")["pixel_values"][0])


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_transforms_of_open_clip(tmp_path: Path, mode: str) -> None:
    built = open_clip_encoder(tmp_path, {"resize_mode": mode})
    assert isinstance(built.prepare.fit, ImageFit)
    assert_seen(built, built.prepare.own)


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_transforms_of_timm(folder_of: Folders, monkeypatch: pytest.MonkeyPatch, crop_mode: str) -> None:
    made = timm.data.create_transform

    def cropping(**settings: Any) -> Any:
        return made(**{**settings, "crop_mode": crop_mode})

    monkeypatch.setattr("mmbridge.encoders.timm.create_transform", cropping)
    built = TimmConfig(path=str(folder_of("timm_vit"))).build()
    assert isinstance(built.prepare.fit, ImageFit)
    assert_seen(built, built.prepare.own)


COLOURS = Pixels((0.4, 0.5, 0.6), (0.2, 0.3, 0.25), "bicubic", white=1)
STEPS = [
    transforms.Resize((16, 16)),
    transforms.ToTensor(),
    transforms.Normalize(COLOURS.mean, COLOURS.std),
]


@pytest.mark.parametrize(
    ("steps", "known"),
    [
        (STEPS, True),
        ([*STEPS, transforms.Lambda(lambda image: image.flip(-1))], False),
        ([*STEPS[:2], transforms.Grayscale(3), STEPS[2]], False),
        ([*STEPS[:2], transforms.Normalize(COLOURS.mean, (0.2, 0.3, 0.2500001))], False),
        (STEPS[:2], False),
    ],
)
def test_a_transform_of_another_form_is_used_whole(folder_of: Folders, steps: list[Any], known: bool) -> None:
    own = transforms.Compose(steps)
    config: VisionConfig = OpenCLIPConfig(path="none")
    preparation = prepared_by(own, ImageFit.of(own), COLOURS, config, Path("none"))
    assert (preparation.fit is not None) == known
    inputs = preparation(picture(50, 40)).inputs
    assert torch.equal(COLOURS.normalise(inputs) if known else inputs, own(picture(50, 40))[None])


def test_a_fit_that_is_not_all_there_is_is_not_used() -> None:
    """Here one that differs only where it makes smaller: it leaves aliases behind."""
    smooth = transforms.Compose(STEPS)
    own = transforms.Compose([transforms.Resize((16, 16), transforms.InterpolationMode.NEAREST), *STEPS[1:]])
    assert prepared_by(smooth, ImageFit.of(own), COLOURS, OpenCLIPConfig(path="none"), Path("none")).fit is None


@pytest.mark.parametrize("family", ["clip", "open_clip"])
def test_of_a_long_picture_no_more_is_kept_than_what_is_used(folder_of: Folders, family: str) -> None:
    config = TransformersConfig if family == "clip" else OpenCLIPConfig
    inputs = config(path=str(folder_of(family))).build().prepare(picture(600, 32)).inputs
    assert inputs.untyped_storage().nbytes() == inputs.numel() == 3 * 32 * 32
    assert torch.cat([inputs, inputs]).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("white", [1, 255])
def test_normalised_on_the_device_as_on_the_cpu(white: Any) -> None:
    colours = Pixels(COLOURS.mean, COLOURS.std, "bicubic", white)
    levels = torch.arange(256, dtype=torch.uint8).expand(1, 3, 2, 256)
    assert torch.equal(colours.normalise(levels.cuda()).cpu(), colours.normalise(levels))
