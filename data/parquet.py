"""Data sets in Parquet, the format of the Hugging Face Hub, read in parts where they are; needs the extra ``hf``."""

from pathlib import Path
from typing import Any

from mmbridge.data.block_shuffle import Blocks
from mmbridge.data.parquet_file import ParquetFile
from mmbridge.data.parquet_files import parquet_files
from mmbridge.data.parquet_table import tabled
from mmbridge.data.recent import Recent
from mmbridge.data.record import Record
from mmbridge.errors import DataError, SourceError

HELD = 2**29
"""Bytes of row groups, decompressed, that a process keeps: so many of the largest as fit, but not fewer than
``FEWEST`` and not more than ``MOST``. They are also the window within which rows are shuffled."""
FEWEST, MOST = 2, 64


class ParquetRecords:
    """The rows of Parquet files: the columns of ``rows``, with ``image`` or ``images`` of the feature ``Image``.

    To open them, their footers and columns of words are read, and what each row holds is kept in the user's cache.
    Images are read with their row group, when a row of it is asked for; a process keeps those it has used last.
    ``blocks`` are the row groups, ``counts`` (rows, 4) is what each row holds, as ``Record.counts`` has it.

    Args:
        path: as ``parquet_files`` takes it.
        root: where images that are stored as paths start from.
        late: as for ``FileRecords``: what is wrong with a row, or with a row group, is an error when it is used.

    Raises:
        DataError: pyarrow is not installed; a file is not there, out of reach, no whole Parquet file, or has other
            columns than records are made of; no rows; unless ``late``, a row is wrong or a row group damaged. Rows are
            called by file and index in it, from 0 on.
    """

    def __init__(self, path: str, root: Path | None = None, *, late: bool = False) -> None:
        try:
            import pyarrow.parquet  # noqa: F401
        except ModuleNotFoundError:
            problem = "expected the package pyarrow, which reads this format, found none"
            raise DataError(path, problem, "pip install 'mmbridge[hf]'") from None
        files = parquet_files(path)
        self._files = [ParquetFile(file, root) for file in files]
        self._table = tabled(files, self._files, root, late)
        if not len(self._table):
            raise DataError(path, "expected rows, found none")
        self.counts = self._table.counts
        fitting = HELD // max(1, int(self._table.sizes.max()))
        self.blocks = Blocks(self._table.rows, min(max(fitting, FEWEST), MOST))
        self._groups = Recent[Any](self.blocks.window)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int, /) -> Record:
        group, row = self._table.group(index)
        table = self._groups.get(group, lambda: self._read(group))
        if isinstance(table, DataError):
            raise table.with_traceback(None)
        number, place = self._table.place(index)
        return self._files[number].drawn(table.slice(row, 1), place)

    def where(self, index: int) -> str:
        """File and index in it."""
        number, place = self._table.place(index)
        return self._files[number].where(place)

    def _read(self, group: int) -> Any:
        """The Arrow table of a row group, or what is wrong with it."""
        file, number = self._table.within_file(group)
        try:
            return self._files[file].group(number, int(self._table.rows[group]))
        except SourceError:
            raise
        except DataError as error:
            return error
