"""The rows of many Parquet files as a few arrays: in which row groups they stand, and what each holds.

To make it, every column of words is read. It is kept in ``mmbridge/parquet_tables`` under ``XDG_CACHE_HOME``
(``~/.cache``), and read from there while no file has another size, time, ETag or hash.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property
from os.path import abspath
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmbridge.data.kept_arrays import KEPT_FROM, place_of, read_kept, write_kept
from mmbridge.data.parquet_file import ParquetFile
from mmbridge.data.parquet_files import AT_ONCE
from mmbridge.data.progress import waited_for
from mmbridge.data.ranged_file import RangedFile
from mmbridge.data.sources import Counts

_FORMAT = 1
"""Another number when a table comes to hold something else."""

Numbers = NDArray[np.int64]


@dataclass
class ParquetTable:
    """Row groups in the order of the files.

    ``groups`` (files,): how many each file has. ``rows``, ``sizes`` (groups,): rows of each, and bytes of what is read
    of it, decompressed. ``counts`` (rows, 4): as ``Record.counts`` has them.
    """

    groups: Numbers
    rows: Numbers
    sizes: Numbers
    counts: Counts

    def __len__(self) -> int:
        return len(self.counts)

    def group(self, index: int) -> tuple[int, int]:
        """Which row group a row stands in, and which of its rows it is."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        group = int(np.searchsorted(self._group_ends, index, side="right"))
        return group, index - int(self._group_ends[group] - self.rows[group])

    def within_file(self, group: int) -> tuple[int, int]:
        """Which file a row group is in, and which of its row groups it is."""
        file = int(np.searchsorted(self._file_ends, group, side="right"))
        return file, group - int(self._file_ends[file] - self.groups[file])

    def place(self, index: int) -> tuple[int, int]:
        """Which file a row stands in, and which of its rows it is."""
        group, row = self.group(index)
        file, number = self.within_file(group)
        return file, row + int(self.rows[group - number : group].sum())

    @cached_property
    def _group_ends(self) -> Numbers:
        return np.cumsum(self.rows)

    @cached_property
    def _file_ends(self) -> Numbers:
        return np.cumsum(self.groups)


_ARRAYS = [each.name for each in fields(ParquetTable)]


def tabled(found: Sequence[RangedFile], files: Sequence[ParquetFile], root: Path | None, late: bool) -> ParquetTable:
    """The table of these files, made if none is kept that still holds.

    Args:
        files: those ``found``, with ``root``; ``late`` as ``ParquetFile.groups`` takes it.
    """
    names = [abspath(each.path) if each.protocol == "file" else each.name for each in found]
    place = place_of("parquet_tables", [_FORMAT, [each.name for each in found], names, str(root), late])
    state = [[each.size, each.version] for each in found]
    kept = read_kept(place, state)
    if kept is not None and kept[0].keys() == set(_ARRAYS):
        return ParquetTable(**kept[0])
    table = _made(files, late, 1 if found[0].protocol == "file" else AT_ONCE)
    costly = found[0].protocol != "file" or len(table) >= KEPT_FROM
    if costly and all(each.version for each in found):
        write_kept(place, state, {name: getattr(table, name) for name in _ARRAYS})
    return table


def _made(files: Sequence[ParquetFile], late: bool, at_once: int) -> ParquetTable:
    with ThreadPoolExecutor(at_once) as threads:
        counting = threads.map(lambda file: file.groups(late), files)
        parts = list(waited_for(counting, "counting", len(files)))
    return ParquetTable(
        np.asarray([len(part.rows) for part in parts]),
        *(np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS[1:]),
    )
