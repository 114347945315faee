"""From a JPEG to an encoder's input, beside transformers' CLIP processors: ``python benchmarks/image_input.py``.

Images of 336 to 640 pixels a side with the spectrum of photographs, for CLIP at 336 pixels, all on one thread. The
processors get one image a call, opened by Pillow, as their users do. mmbridge is timed up to what a loader worker puts
on its queue, and again with the normalising that is left to the encoder's device, here on the same CPU. Before anything
is timed, its pixels must be those of transformers' default. Writes ``results/image_input.json``.
"""

import argparse
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from paired import lines, paired
from photographs import QUALITY, photographs
from PIL import Image
from random_llava import Shape, write
from record import Record
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg  # type: ignore[import-untyped]
from torchvision.transforms import v2  # type: ignore[import-untyped]
from transformers import AutoImageProcessor

from mmbridge.data.media import open_picture
from mmbridge.data.sample import Medium
from mmbridge.encoders.config import TransformersConfig
from mmbridge.encoders.preprocessing import PicturePreparation

SHAPE = Shape((32, 1, 4, 48), 96, (32, 1, 4, 48), 336, 14, 1, 5, 3, 4)
"""Only the size of its images matters; its layers do not run."""

QUALITIES = (QUALITY, 93)
"""Of the JPEGs: 60 and 105 kB each. The more bytes, the more of the time is decoding, which hardly differs."""

DEFAULT, PIL = "transformers", "transformers, PIL backend"
QUEUED, NORMALISED = "mmbridge, up to the queue", "mmbridge, normalised"


def one_at_a_time(processor: Any, files: Sequence[bytes]) -> Iterator[Tensor]:
    """(3, 336, 336) each, as users of transformers get them."""
    for file in files:
        yield processor(images=Image.open(BytesIO(file)), return_tensors="pt")["pixel_values"][0]


def with_torchvision(pixels: Any, files: Sequence[bytes]) -> None:
    """What one writes by hand in torchvision: near transformers' pixels, not the same."""
    prepare = v2.Compose(
        [
            v2.Resize(SHAPE.image, v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(SHAPE.image),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(pixels.mean, pixels.std),
        ]
    )
    for file in files:
        prepare(decode_jpeg(torch.frombuffer(bytearray(file), dtype=torch.uint8), ImageReadMode.RGB))


def queued(prepare: PicturePreparation, files: Sequence[bytes]) -> Iterator[Tensor]:
    """(1, 3, 336, 336) each, uint8."""
    for file in files:
        yield prepare(open_picture(Medium("image", file))).inputs


def normalised(prepare: PicturePreparation, files: Sequence[bytes]) -> Iterator[Tensor]:
    """(1, 3, 336, 336) each, as an encoder sees them."""
    yield from map(prepare.pixels.normalise, queued(prepare, files))


def taken(inputs: Iterator[object]) -> None:
    """All of them, none kept."""
    deque(inputs, maxlen=0)


def measured(quality: int, count: int, rounds: int) -> dict[str, Any]:
    """All figures.

    Raises:
        AssertionError: the pixels are not transformers' own.
    """
    files = list(photographs(count, quality))
    with TemporaryDirectory() as folder:
        write(SHAPE, Path(folder))
        prepare = TransformersConfig(path=folder).build().prepare
        default, pil = (
            AutoImageProcessor.from_pretrained(folder, backend=backend)  # type: ignore[no-untyped-call]
            for backend in ("torchvision", "pil")
        )
    for mine, reference in zip(normalised(prepare, files), one_at_a_time(default, files), strict=True):
        assert torch.equal(mine[0], reference), "expected transformers' pixels, found others"
    variants: Mapping[str, Callable[[], object]] = {
        DEFAULT: lambda: taken(one_at_a_time(default, files)),
        PIL: lambda: taken(one_at_a_time(pil, files)),
        "torchvision.io and v2": lambda: with_torchvision(prepare.pixels, files),
        QUEUED: lambda: taken(queued(prepare, files)),
        NORMALISED: lambda: taken(normalised(prepare, files)),
    }
    return {
        "images": count,
        "bytes": float(np.mean([len(file) for file in files])),
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "times": {baseline: paired({baseline: variants[baseline], **variants}, rounds) for baseline in (DEFAULT, PIL)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(1)
    record = Record("image_input")
    for quality in QUALITIES:
        found = measured(quality, given.images, given.rounds)
        record.keep(f"quality {quality}", found)
        print(f"{found['images']} images of {found['bytes'] / 1000:.0f} kB")
        for times in found["times"].values():
            print("\n".join(lines(times)))


if __name__ == "__main__":
    main()
