"""One Parquet file: its row groups, and the records in them.

In a row group every column stands by itself. To count what its rows hold, only its columns of words are read.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmbridge.data.arrow_records import AT_ONCE, ArrowRecords
from mmbridge.data.parquet_schema import Columns, columns_of
from mmbridge.data.ranged_file import RangedFile
from mmbridge.data.record import PARTS, Record
from mmbridge.data.sources import Counts
from mmbridge.errors import DataError, UserError

LARGEST = 2**31 - 1
"""Bytes of a row group, decompressed, that are read at most: it is held in memory as a whole."""
MOST = 2**24
"""Rows of a row group at most."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Groups:
    """``rows`` and ``sizes`` (groups,): rows and bytes, decompressed, of each row group; ``counts`` (rows, 4)."""

    rows: NDArray[np.int64]
    sizes: NDArray[np.int64]
    counts: Counts


class ParquetFile(ArrowRecords):
    """A file by its row groups. It is opened for each reading, and holds nothing of what it has read.

    Args:
        root: where images that are stored as paths start from; the folder of a local file when left out, and without
            one a remote file can name nothing outside itself.
    """

    def __init__(self, file: RangedFile, root: Path | None) -> None:
        path = Path(file.name)
        self._file, self._root, self._name = file, root or (path.parent if file.protocol == "file" else path), path.name

    def groups(self, late: bool) -> Groups:
        """Its row groups, and what each row holds.

        Raises:
            DataError: it is no whole Parquet file, has other columns than records are made of or a row group that is
                too large; unless ``late``, a row is wrong or a row group damaged.
        """

        def take(opened: Any) -> Groups:
            import pyarrow.parquet as pq

            file = pq.ParquetFile(opened, pre_buffer=True)
            columns = columns_of(file.metadata, self._file.name)
            rows, sizes, held = array("q"), array("q"), array("i")
            for number in range(file.num_row_groups):
                rows.append(file.metadata.row_group(number).num_rows)
                sizes.append(self._size(file.metadata.row_group(number), columns))
                held.extend(self._held(file, number, columns.counted, sum(rows[:-1]), late))
            return Groups(np.asarray(rows), np.asarray(sizes), np.asarray(held).reshape(-1, len(PARTS)))

        return self._whole("", lambda: self._file.read(take))

    def group(self, number: int, rows: int) -> Any:
        """The rows of a row group, images and all, as an Arrow table.

        Raises:
            DataError: it is damaged; a SourceError, if the file is out of reach or no longer the one it was.
        """

        def take(opened: Any) -> Any:
            import pyarrow.parquet as pq

            file = pq.ParquetFile(opened, pre_buffer=True)
            drawn = columns_of(file.metadata, self._file.name).drawn
            return _all(rows, file.read_row_group(number, drawn, use_threads=False))

        return self._whole(f" in row group {number}", lambda: self._file.read(take))

    def drawn(self, table: Any, index: int) -> Record:
        return self._whole(f" in row {index}", lambda: super(ParquetFile, self).drawn(table, index))

    def where(self, index: int) -> str:
        """File and row, from 0 on."""
        return f"{self._file.name}:{index}"

    def name(self, index: int) -> str:
        return f"{self._name}:{index}"

    def root(self, index: int) -> Path:
        return self._root

    def _held(self, file: Any, number: int, columns: list[str], first: int, late: bool) -> "array[int]":
        """What each row of a row group holds; one of each part, if it cannot be read and this is to come out late."""
        rows: int = file.metadata.row_group(number).num_rows

        def count() -> "array[int]":
            import pyarrow as pa

            held, at = array("i"), first
            for batch in file.iter_batches(AT_ONCE, row_groups=[number], columns=columns, use_threads=False):
                table = pa.Table.from_batches([batch])
                held.extend(self.held(table, at, late))
                at += len(table)
            _all(rows * len(PARTS), held)
            return held

        try:
            return self._whole(f" in row group {number}", count)
        except DataError as error:
            if not late or type(error) is not DataError:
                raise
            return array("i", [1]) * (rows * len(PARTS))

    def _size(self, group: Any, columns: Columns) -> int:
        """Bytes of what is read of a row group, decompressed."""
        chunks = [group.column(number) for number in range(group.num_columns)]
        size: int = sum(
            each.total_uncompressed_size for each in chunks if each.path_in_schema.split(".")[0] in columns.drawn
        )
        if not (0 <= size <= LARGEST and 0 <= group.num_rows <= MOST):
            problem = f"expected row groups of at most {LARGEST:,} bytes and {MOST:,} rows"
            found = f"found one of {size:,} bytes and {group.num_rows:,} rows"
            raise DataError(self._file.name, f"{problem}, {found}", "write it anew with smaller ones")
        return size

    def _whole(self, where: str, read: Callable[[], T]) -> T:
        """What is read; whatever Arrow finds wrong is a fault in the file."""
        try:
            return read()
        except UserError:
            raise
        except Exception as error:  # damaged files make it raise nearly anything
            reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
            problem = f"expected a whole Parquet file, found a fault{where} ({reason})"
            raise DataError(self._file.name, problem) from None


def _all(count: int, things: T) -> T:
    if len(things) != count:  # type: ignore[arg-type]
        raise ValueError(f"{count:,} announced, {len(things):,} found")  # type: ignore[arg-type]
    return things
