"""WebDataset shards by random access: an index from the tar headers, members read where they stand.

Nothing is extracted, no member's name becomes a path, and only members with an extension named in ``shard_index`` are
ever read: pickles and code that a shard may hold are not looked at (webdataset issue 490 says what looking can do).
"""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from io import BufferedReader
from pathlib import Path

from mmbridge.data.files import held_by
from mmbridge.data.media import LIMITS
from mmbridge.data.messages import shown
from mmbridge.data.record import Record
from mmbridge.data.rows import Row, read_record
from mmbridge.data.sample import Medium
from mmbridge.data.shard_index import Entry, Extent, entries
from mmbridge.data.shard_table import kept, tabled
from mmbridge.errors import DataError


class ShardRecords:
    """The samples of tar shards, in order: images, with columns in ``.json`` or a caption in ``.txt``.

    ``KEY.jpg`` is the one image of a sample. ``KEY.0.jpg``, ``KEY.1.png`` … are those of a conversation: each
    ``{"type": "image"}`` of its ``messages`` takes the next. ``counts`` says what each record holds, as
    ``Record.counts`` does; to know it, every JSON is read once, and again when a shard has changed.

    Args:
        largest: members of more bytes are refused unread.
        root: where paths in ``messages`` start from; without one a shard can name nothing outside itself.
        late: as for ``FileRecords``: what is wrong with a sample is an error when it is used. Of a shard that is cut
            off or damaged further on, the samples before that are read; the one it strikes is bad.

    Raises:
        DataError: when they are opened, naming shard and key: not an uncompressed tar, nothing that could be a
            sample; unless ``late`` also truncated, a member too large or twice there, images not numbered from 0 on,
            bad JSON, a column of the wrong type.
    """

    def __init__(
        self, shards: Sequence[Path], root: Path | None = None, *, late: bool = False, largest: int = LIMITS.bytes
    ) -> None:
        self._shards, self._root, self._late, self._largest = tuple(shards), root, late, largest
        self._table = kept(self._shards, (root, late, largest), lambda: tabled(map(self._entries, self._shards)))
        self.counts = self._table.counts

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int, /) -> Record:
        entry, shard = self._table.entry(index), self._shards[self._table.shard(index)]
        with _opened(shard) as file:
            return self._record(shard, file, entry, pixels=True)

    def where(self, index: int) -> str:
        """Shard and key."""
        return f"{self._shards[self._table.shard(index)]}:{self._table.entry(index).key}"

    def _entries(self, shard: Path) -> Iterator[tuple[Entry, tuple[int, ...]]]:
        """The entries of a shard, and what each holds."""
        with _opened(shard) as file:
            for entry in list(entries(shard, file, self._largest)):
                yield entry, held_by(partial(self._record, shard, file, entry, pixels=False), self._late)

    def _record(self, shard: Path, file: BufferedReader, entry: Entry, *, pixels: bool) -> Record:
        if entry.fault is not None:
            raise entry.fault
        where = f"{shard}:{entry.key}"
        row = _columns(_read(file, entry.columns), where)
        text = _read(file, entry.text)
        if text is not None:
            row = {"text": _decoded(text, where).strip(), **row}
        names = [where] if len(entry.images) == 1 else [f"image {n} ({where})" for n in range(len(entry.images))]
        pictures = [(_read(file, each) or b"") if pixels else b"" for each in entry.images]
        media = [Medium("image", data, name) for data, name in zip(pictures, names, strict=True)]
        # Without a root nothing outside the shard can be named: a path under a file leads nowhere.
        return read_record(row, entry.key, media, self._root or shard, where)


def _opened(shard: Path) -> BufferedReader:
    try:
        return shard.open("rb")
    except FileNotFoundError:
        raise DataError(shard, "expected a shard, found no such file") from None
    except OSError as error:
        raise DataError(shard, f"cannot be read ({error.strerror})") from None


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
