"""Records of Arrow tables, as ``datasets`` keeps them: in its own folders and in Parquet."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mmbridge.data.files import held_by
from mmbridge.data.record import Record
from mmbridge.data.rows import Row, named_media, named_vectors, read_record
from mmbridge.data.sample import Medium

MEDIA = ("image", "images")
"""Columns that hold images: paths, or ``bytes`` and ``path`` as the feature ``Image`` of ``datasets`` stores them."""
AT_ONCE = 1000
"""Rows that are made Python objects at a time, to count what they hold."""


class ArrowRecords(ABC):
    """What the records of Arrow tables share: how a row is counted, and how it is made a record."""

    @abstractmethod
    def where(self, index: int) -> str:
        """What errors call a row."""

    @abstractmethod
    def name(self, index: int) -> str:
        """The id of a row that has none."""

    @abstractmethod
    def root(self, index: int) -> Path:
        """Where images of a row that are stored as paths start from."""

    def drawn(self, table: Any, index: int) -> Record:
        """The record of row ``index``, from a table of that row alone."""
        (row,) = table.to_pylist()
        return self._record(row, index, named_media(row, self.root(index), self.where(index)))

    def held(self, table: Any, first: int, late: bool) -> Iterator[int]:
        """What each row holds, from row ``first`` on. The bytes of images are not touched and need not be there."""
        words = [name for name in table.column_names if name not in MEDIA]
        rows, counts = table.select(words).to_pylist(), _counted(table)
        for index, row in enumerate(rows or [{} for _ in counts], first):
            images = [Medium("image", b"", self.where(index))] * counts[index - first]
            yield from held_by(partial(self._told, row, index, images), late)

    def _told(self, row: Row, index: int, images: list[Medium]) -> Record:
        return self._record(row, index, [*images, *named_vectors(row, self.root(index), self.where(index))])

    def _record(self, row: Row, index: int, media: list[Medium]) -> Record:
        return read_record(row, self.name(index), media, self.root(index), self.where(index))


def _counted(table: Any) -> list[int]:
    """How many images each row of an Arrow table has, without touching their bytes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    counts = [0] * len(table)
    for name in reversed(MEDIA):  # where a row has both, image is the one that is read
        if name in table.column_names:
            column = table[name]
            one = pa.types.is_struct(column.type) or not pa.types.is_nested(column.type)
            held = pc.is_valid(column) if one else pc.list_value_length(column)
            given = pc.is_valid(column).to_pylist()
            counts = [
                int(many) if known else before
                for many, known, before in zip(held.to_pylist(), given, counts, strict=True)
            ]
    return counts
