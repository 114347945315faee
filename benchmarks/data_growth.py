"""Costs of data against their size: each function runs in a process of its own, for ``growth.py``."""

import json
import os
import tarfile
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cost import allocated, cost, open_files

import mmbridge.data.shards  # noqa: F401  # before the opening of any is timed
from mmbridge.data.formats import METADATA, open_source
from mmbridge.data.mixture import Mixture
from mmbridge.data.sample import Sample

LLAVA = "llava.json"
PER_SHARD = 50
CAPTION = "A sentence about number {} that says a little of what can be seen there."
DRAWS = 1000
RESUMED_AT = 5_000_000


def write_shards(folder: Path, count: int) -> None:
    """``00000.tar`` …: so many names of one shard."""
    first = folder / "00000.tar"
    with tarfile.open(first, "w") as tar:
        for number in range(PER_SHARD):
            for extension, data in (("jpg", b"\xff" * 600), ("json", json.dumps({"text": CAPTION.format(number)}))):
                body = data if isinstance(data, bytes) else data.encode()
                header = tarfile.TarInfo(f"{number:06d}.{extension}")
                header.size = len(body)
                tar.addfile(header, BytesIO(body))
    for number in range(1, count):
        os.link(first, folder / f"{number:05d}.tar")


def write_rows(path: Path, count: int) -> Path:
    """A ``metadata.jsonl`` or a LLaVA JSON, as the name says, of so many rows about images that are not there."""
    between, row = ("\n", folder_row) if path.name == METADATA else (",\n", llava_row)
    with path.open("w") as file:
        file.write("[" * (row is llava_row))
        for number in range(count):
            file.write((between if number else "") + json.dumps(row(number)))
        file.write("]" * (row is llava_row))
    return path


def folder_row(number: int) -> dict[str, Any]:
    return {"file_name": f"{number:08d}.jpg", "text": CAPTION.format(number)}


def llava_row(number: int) -> dict[str, Any]:
    said = [("human", "<image>\nWhat is this?"), ("gpt", CAPTION.format(number))]
    turns = [{"from": speaker, "value": value} for speaker, value in said]
    return {"id": str(number), "image": f"{number:08d}.jpg", "conversations": turns}


def opened(path: str, cache: str | None) -> dict[str, float]:
    """Opening a data set, and how many files are open once some of it has been read; without a cache, a new one."""
    with TemporaryDirectory() as new:
        os.environ["XDG_CACHE_HOME"] = cache or new
        before = open_files()
        source, seconds, memory = cost(lambda: open_source(path))
        for index in range(0, len(source), max(1, len(source) // DRAWS)):
            _ = source[index]
        return {"seconds": seconds, "bytes": memory, "open files": open_files() - before}


class Imagined:
    """A source of a given length that makes its samples of nothing."""

    def __init__(self, length: int) -> None:
        self.name, self._length = "imagined", length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int, /) -> Sample:
        return Sample(str(index), ())


def mixed(length: int, sources: int) -> dict[str, float]:
    """The order of a mixture of equal sources: the first draw, those after it, an epoch's end, and going on later."""

    def begun(draw: int) -> Mixture:
        mixture = Mixture([Imagined(length // sources) for _ in range(sources)], [1.0] * sources, 0)
        _ = mixture[draw]
        return mixture

    def gone_on(mixture: Mixture, first: int) -> None:
        for draw in range(first, first + DRAWS):
            _ = mixture[draw]

    begun(0)  # NumPy's own first use
    mixture, first, _ = cost(lambda: begun(0))
    _, following, _ = cost(lambda: gone_on(mixture, 1))
    _, over, _ = cost(lambda: gone_on(mixture, len(mixture) - DRAWS // 2))
    _, resumed, _ = cost(lambda: begun(RESUMED_AT))
    return {
        "first draw, s": first,
        "a draw, s": following / DRAWS,
        f"{DRAWS} draws over an epoch's end, s": over,
        f"first draw at {RESUMED_AT:,}, s": resumed,
        "order, bytes": allocated(lambda: gone_on(begun(0), length - DRAWS // 2)),
    }
