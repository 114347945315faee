"""Small images and rows for the tests of data."""

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmbridge.data.record import Question, Record
from mmbridge.data.sample import Medium


def noise(seed: int = 0, side: int = 8) -> Image.Image:
    """A picture unlike those of other seeds."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def header_only_png(width: int, height: int) -> bytes:
    """A PNG whose header promises this size; its pixels are those of a tiny one."""
    data = bytearray(encoded(noise()))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


def record(index: int) -> Record:
    """A record with two questions and one ``pope`` question."""
    return Record(
        id=f"r{index}",
        medium=Medium("image", noise(index), f"r{index}"),
        text=f"caption {index}",
        references=(f"caption {index}", f"also {index}"),
        facts=(("circle", "red"),),
        objects=("red circle",),
        questions=(
            Question("what colour?", ("red",), "colour"),
            Question("is there a star?", ("no",), "pope"),
            Question("what shape?", ("circle", "a circle"), "shape"),
        ),
        split="test",
    )


def write_lines(path: Path, rows: Sequence[Mapping[str, Any] | str]) -> Path:
    """JSON lines; a string stands as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path
