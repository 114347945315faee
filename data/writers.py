"""Writing records in the public formats that ``open_source`` reads back: an imagefolder, or WebDataset shards."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import chain, islice
from pathlib import Path

from webdataset.writer import TarWriter

from mmbridge.data.formats import METADATA
from mmbridge.data.media import open_image
from mmbridge.data.record import Record
from mmbridge.data.rows import row_of
from mmbridge.errors import DataError


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
                name = f"{count - 1:06d}.png"
                row = {"file_name": name, **_row(record)}
                (folder / name).write_bytes(_png(record))
                rows.write(json.dumps(row, ensure_ascii=False) + "\n")
        part.rename(folder / METADATA)
    return count


def write_shards(records: Iterable[Record], folder: str | Path, per_shard: int = 1000) -> int:
    """Shards ``000000.tar`` … of ``per_shard`` records, each a PNG and a JSON with its columns; returns how many.

    Records alone decide the bytes: writing them again gives equal shards.

    Raises:
        DataError: as for ``write_folder``.
    """
    folder, count, numbered = Path(folder), 0, enumerate(records)
    with _writing(folder):
        for shard, first in enumerate(numbered):
            part = folder / f"{shard:06d}.tar.part"
            with part.open("wb") as file, TarWriter(file, encoder=False, mtime=0) as tar:
                for index, record in chain([first], islice(numbered, per_shard - 1)):
                    row = {"file_name": f"{index:06d}.png", **_row(record)}
                    columns = json.dumps(row, ensure_ascii=False).encode()
                    tar.write({"__key__": f"{index:06d}", "png": _png(record), "json": columns})
                    count = index + 1
            part.rename(part.with_suffix(""))
    return count


def _row(record: Record) -> dict[str, object]:
    if record.medium is None or record.messages is not None:
        raise DataError(record.id, "expected a record with an image and columns, found a conversation")
    return row_of(record)


def _png(record: Record) -> bytes:
    assert record.medium is not None
    file = BytesIO()
    open_image(record.medium).save(file, "PNG")
    return file.getvalue()


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
