"""WebDataset shards by random access: an index from the tar headers, members read where they stand.

Nothing is extracted, no member name becomes a path, and only members with an extension named here are ever read:
pickles and code that a shard may hold are not looked at. See webdataset issue 490 for what looking can do.
"""

import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mmbridge.data.media import LIMITS
from mmbridge.data.record import Record
from mmbridge.data.rows import read_record
from mmbridge.data.sample import Medium
from mmbridge.errors import DataError

IMAGES = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "ppm")
_SLOTS = {"json": 1, "txt": 2, **dict.fromkeys(IMAGES, 0)}
"""Which place of an entry a member with this extension takes."""

Entry = tuple[str, list[tuple[int, int]]]
"""A key, and for its image, JSON and text the offset in the shard and the size; size −1 where there is none."""


class ShardRecords:
    """The samples of WebDataset tar shards, in order: an image with ``.json`` (columns as in a row) or ``.txt``.

    Raises:
        DataError: naming the shard, when it is opened: not an uncompressed tar, truncated, a member above the size
            cap, two members of one name, no samples; naming shard and key, when a record is read: bad JSON, a column
            of the wrong type.
    """

    def __init__(self, shards: Sequence[Path], largest: int = LIMITS.bytes, root: Path | None = None) -> None:
        self._shards, self._root = tuple(shards), root
        self._keys: list[str] = []
        places: list[tuple[int, list[tuple[int, int]]]] = []
        for number, shard in enumerate(shards):
            begun = len(places)
            for key, members in _entries(shard, largest):
                self._keys.append(key)
                places.append((number, members))
            if len(places) == begun:
                raise DataError(shard, f"expected samples of an image with .json or .txt, found {_extensions(shard)}")
        self._shard = np.array([number for number, _ in places], np.int32)
        self._members = np.array([members for _, members in places], np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int, /) -> Record:
        shard, key = self._shards[self._shard[index]], self._keys[index]
        where = f"{shard}:{key}"
        with shard.open("rb") as file:
            image, row, text = (_read(file, int(offset), int(size)) for offset, size in self._members[index])
        columns = {} if row is None else _columns(row, where)
        if text is not None and "text" not in columns:
            columns["text"] = _decoded(text, where).strip()
        media = [] if image is None else [Medium("image", image, where)]
        # Without a root nothing outside the shard can be named: a path under a file leads nowhere.
        return read_record(columns, key, media, self._root or shard, where)


def _entries(shard: Path, largest: int) -> Iterator[Entry]:
    """Members grouped as WebDataset groups them: neighbours whose names agree up to the first dot of the base name."""
    key, members = "", [(0, -1)] * 3
    for member in _headers(shard):
        folder, _, base = member.name.rpartition("/")
        stem, _, extension = base.partition(".")
        if not member.isreg() or not stem or (slot := _SLOTS.get(extension.lower())) is None:
            continue
        if member.size > largest:
            found = f"{member.name} of {member.size:,}"
            raise DataError(shard, f"expected members of at most {largest:,} bytes, found {found}")
        name = f"{folder}/{stem}" if folder else stem
        if name != key:
            if _whole(members):
                yield key, members
            key, members = name, [(0, -1)] * 3
        if members[slot][1] >= 0:
            raise DataError(f"{shard}:{key}", f"expected one image, one .json and one .txt, found another {extension}")
        members[slot] = (member.offset_data, member.size)
    if _whole(members):
        yield key, members
