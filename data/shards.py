"""WebDataset shards by random access: an index from the tar headers, members read where they stand.

Nothing is extracted, no member's name becomes a path, and only members with an extension named here are ever read:
pickles and code that a shard may hold are not looked at (webdataset issue 490 says what looking can do).
"""

import json
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from io import BufferedReader
from pathlib import Path

import numpy as np
from webdataset.tariterators import base_plus_ext

from mmbridge.data.files import held_by
from mmbridge.data.media import LIMITS
from mmbridge.data.messages import shown
from mmbridge.data.record import PARTS, Record
from mmbridge.data.rows import Row, read_record
from mmbridge.data.sample import Medium
from mmbridge.errors import DataError

IMAGES = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "ppm")
_IMAGE, _JSON, _TEXT = range(3)
_SLOTS = {**dict.fromkeys(IMAGES, _IMAGE), "json": _JSON, "txt": _TEXT}

Extent = tuple[int, int]
"""Offset in the shard and size of a member; size −1 where a sample has no such member."""
_NONE: Extent = (0, -1)


class ShardRecords:
    """The samples of tar shards, in order: an image, with columns in ``.json`` or a caption in ``.txt``.

    ``counts`` says what each record holds, as ``Record.counts`` does; to know it, every JSON is read once.

    Args:
        largest: members of more bytes are refused unread.
        root: where paths in ``messages`` start from; without one a shard can name nothing outside itself.
        late: as for ``FileRecords``: bad JSON and bad columns are errors when they are used.

    Raises:
        DataError: when they are opened, naming shard and key: not an uncompressed tar, truncated, a member too large
            or twice there, bad JSON, a column of the wrong type, nothing that could be a sample.
    """

    def __init__(
        self, shards: Sequence[Path], root: Path | None = None, *, late: bool = False, largest: int = LIMITS.bytes
    ) -> None:
        self._shards, self._root = tuple(shards), root
        entries: list[tuple[int, str, list[Extent]]] = []
        held: list[tuple[int, ...]] = []
        for number, shard in enumerate(shards):
            with _opened(shard) as file:
                for key, members in list(_entries(shard, file, largest)):
                    entries.append((number, key, members))
                    reading = partial(self._record, shard, file, key, members, pixels=False)
                    held.append(held_by(reading, late))
        self._keys = [key for _, key, _ in entries]
        self._numbers = np.array([number for number, _, _ in entries], np.int32)
        self._extents = np.array([members for _, _, members in entries], np.int64)
        self.counts = np.array(held, np.int64).reshape(-1, len(PARTS))

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int, /) -> Record:
        shard = self._shards[self._numbers[index]]
        extents = [(int(offset), int(size)) for offset, size in self._extents[index]]
        with _opened(shard) as file:
            return self._record(shard, file, self._keys[index], extents, pixels=True)

    def _record(self, shard: Path, file: BufferedReader, key: str, extents: list[Extent], *, pixels: bool) -> Record:
        where = f"{shard}:{key}"
        row = _columns(_read(file, extents[_JSON]), where)
        text = _read(file, extents[_TEXT])
        if text is not None:
            row = {"text": _decoded(text, where).strip(), **row}
        media = []
        if extents[_IMAGE] != _NONE:
            media.append(Medium("image", (_read(file, extents[_IMAGE]) or b"") if pixels else b"", where))
        # Without a root nothing outside the shard can be named: a path under a file leads nowhere.
        return read_record(row, key, media, self._root or shard, where)


def _opened(shard: Path) -> BufferedReader:
    try:
        return shard.open("rb")
    except FileNotFoundError:
        raise DataError(shard, "expected a shard, found no such file") from None
    except OSError as error:
        raise DataError(shard, f"cannot be read ({error.strerror})") from None


def _entries(shard: Path, file: BufferedReader, largest: int) -> Iterator[tuple[str, list[Extent]]]:
    """Members grouped as WebDataset groups them: neighbours that agree up to the first dot of the base name."""
    current: str | None = None
    members: list[Extent] = []
    passed: set[str] = set()
    for header in _headers(shard, file):
        key, extension = base_plus_ext(header.name)
        slot = _SLOTS.get(str(extension).lower())
        if key is None or slot is None or not header.isreg() or header.issparse():
            passed.add(f".{extension}" if extension else "names without extension")
            continue
        if header.size > largest:
            found = f"{header.name} of {header.size:,}"
            raise DataError(shard, f"expected members of at most {largest:,} bytes, found {found}")
        if key != current:
            if current is not None:
                yield current, members
            current, members = key, [_NONE] * 3
        if members[slot] != _NONE:
            raise DataError(f"{shard}:{key}", f"expected one image, one .json and one .txt, found another .{extension}")
        members[slot] = (header.offset_data, header.size)
    if current is None:
        found = f"only {', '.join(sorted(passed))}" if passed else "no members"
        raise DataError(shard, f"expected images with .json or .txt, found {found}")
    yield current, members


def _headers(shard: Path, file: BufferedReader) -> Iterator[tarfile.TarInfo]:
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (header := tar.next()) is not None:
                if header.size < 0:  # would send older Pythons round in circles (CVE-2025-8194)
                    raise tarfile.ReadError("negative size")
                yield header
                tar.members = []  # type: ignore[attr-defined]  # else it keeps every header
    except (tarfile.TarError, ValueError, EOFError) as error:  # damaged extended headers raise any of these
        raise DataError(shard, f"expected a whole, uncompressed tar, found a fault in it ({error})") from None


def _read(file: BufferedReader, extent: Extent) -> bytes | None:
    offset, size = extent
    if size < 0:
        return None
    file.seek(offset)
    return file.read(size)


def _columns(data: bytes | None, where: str) -> Row:
    if data is None:
        return {}
    try:
        row = json.loads(_decoded(data, where))
    except (ValueError, RecursionError) as error:
        raise DataError(where, f".json: expected JSON, found an error in it ({error})") from None
    if not isinstance(row, dict):
        raise DataError(where, f".json: expected an object, found {shown(row)}")
    return row


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(where, "expected UTF-8 text, found other bytes") from None
