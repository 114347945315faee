"""Images with the statistics of photographs, the same for the same seed: amplitudes fall with frequency.

Their JPEG files are of 336 to 640 pixels a side and about 60 KB, as those of LLaVA's 558k captions are.
"""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE, _FIELDS = 1024, 4
_SIDES = (336, 640)
_STEEPNESS, _CONTRAST = 1.3, 50.0
QUALITY = 83
_COLOURS = ((1.0, 0.3, 0.1), (1.0, -0.1, -0.3), (1.0, -0.3, 0.4))
"""What light and two differences of colour add to red, green and blue."""


def photographs(count: int, quality: int = QUALITY, seed: int = 0) -> Iterator[bytes]:
    """JPEG files, of pieces of random size and place of a few large fields of noise."""
    random = np.random.default_rng(seed)
    fields = [_field(random) for _ in range(_FIELDS)]
    for _ in range(count):
        height, width = random.integers(_SIDES[0], _SIDES[1], size=2, endpoint=True)
        top, left = random.integers(_SIDE - height), random.integers(_SIDE - width)
        piece = fields[random.integers(_FIELDS)][top : top + height, left : left + width]
        file = BytesIO()
        Image.fromarray(piece).save(file, "JPEG", quality=quality)
        yield file.getvalue()


def write_photographs(folder: Path, count: int) -> list[Path]:
    """Writes ``count`` of them, numbered."""
    paths = [folder / f"{number:06d}.jpg" for number in range(count)]
    for path, file in zip(paths, photographs(count), strict=True):
        path.write_bytes(file)
    return paths


def _field(random: np.random.Generator) -> NDArray[np.uint8]:
    """(side, side, 3)."""
    rows, columns = np.fft.fftfreq(_SIDE)[:, None], np.fft.rfftfreq(_SIDE)[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf
    noise = np.fft.rfft2(random.standard_normal((3, _SIDE, _SIDE))) / frequency**_STEEPNESS
    light = np.moveaxis(np.fft.irfft2(noise, (_SIDE, _SIDE)), 0, -1) @ np.array(_COLOURS).T
    values = 128 + _CONTRAST * (light - light.mean()) / light.std()
    field: NDArray[np.uint8] = np.clip(values, 0, 255).astype(np.uint8)
    return field
