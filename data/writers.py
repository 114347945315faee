"""Writing records in the public formats that ``open_source`` reads back: an imagefolder, or WebDataset shards."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path

from webdataset.writer import TarWriter

from mmbridge.data.formats import METADATA
from mmbridge.data.media import image_file, open_image
from mmbridge.data.record import Record
from mmbridge.data.rows import row_of
from mmbridge.errors import DataError

Members = dict[str, bytes]
"""What a shard holds of one record: the bytes of its members, by extension."""


def write_folder(records: Iterable[Record], folder: str | Path) -> int:
    """PNG files and a ``metadata.jsonl`` of ``file_name`` and the columns of each record; returns how many.

    The ``metadata.jsonl`` appears last: a folder that was left half-written is not taken for a data set.

    Raises:
        DataError: the folder is not empty or cannot be written, or a record is a conversation or has no medium.
    """
    folder, count = Path(folder), 0
    with _writing(folder):
        part = folder / f"{METADATA}.part"
        with part.open("w", encoding="utf-8") as rows:
            for count, record in enumerate(records, start=1):
                if record.medium is None or record.messages is not None:
                    raise DataError(record.id, "expected a record with an image and columns, found a conversation")
                name = f"{count - 1:06d}.png"
                open_image(record.medium).save(folder / name)
                rows.write(json.dumps({"file_name": name, **row_of(record)}, ensure_ascii=False) + "\n")
        part.rename(folder / METADATA)
    return count


def write_shards(records: Iterable[Record], folder: str | Path, per_shard: int = 1000) -> int:
    """Shards ``000000.tar`` … of ``per_shard`` records each, with the members that ``members`` gives; returns how many.

    Raises:
        DataError: as for ``write_members``.
        MediaError: an image cannot be read.
    """
    return write_members(map(members, records), folder, per_shard)


def members(record: Record) -> Members:
    """A record's columns as JSON, and its image files as they are.

    Extensions are told from the files' bytes: ``jpg`` where there is one image, ``0.jpg``, ``1.png`` … where a
    conversation has several.

    Raises:
        MediaError: an image is missing, damaged, or none.
    """
    files = [image_file(medium) for medium in record.media]
    several = len(files) > 1
    images = {f"{number}.{extension}" if several else extension: data for number, (data, extension) in enumerate(files)}
    return {**images, "json": json.dumps(row_of(record)).encode("ascii")}


def write_members(samples: Iterable[Members], folder: str | Path, per_shard: int = 1000) -> int:
    """Shards of ``per_shard`` samples each, numbered through; returns how many samples.

    The samples alone decide the bytes. All shards appear when the last one is whole, and none if anything fails.

    Raises:
        DataError: the folder is not empty or cannot be written.
    """
    folder, count, numbered = Path(folder), 0, enumerate(samples)
    parts: list[Path] = []
    with _writing(folder):
        try:
            for shard, first in enumerate(numbered):
                parts.append(folder / f"{shard:06d}.tar.part")
                with parts[-1].open("wb") as file, TarWriter(file, encoder=False, mtime=0) as tar:
                    for index, sample in chain([first], islice(numbered, per_shard - 1)):
                        tar.write({"__key__": f"{index:06d}", **sample})
                        count = index + 1
        except BaseException:
            for part in parts:
                part.unlink(missing_ok=True)
            raise
        for part in parts:
            part.rename(part.with_suffix(""))
    return count


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Makes the folder, refuses one with something in it, and says in one line what goes wrong while writing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise DataError(folder, "expected an empty folder, found files in it", "name another folder")
        yield
    except OSError as error:
        raise DataError(folder, f"cannot be written ({error.strerror or error})") from error
