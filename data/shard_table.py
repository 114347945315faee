"""The samples of many shards as a few arrays: where their members stand, and what each holds.

To make it, every header and every JSON of every shard is read. It is kept in ``mmbridge/shard_tables`` under
``XDG_CACHE_HOME`` (``~/.cache``) as safetensors, and read from there while no shard's size or time has changed.
"""

import json
import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmbridge.data.kept_arrays import KEPT_FROM, place_of, read_kept, write_kept
from mmbridge.data.record import PARTS
from mmbridge.data.shard_index import Entry
from mmbridge.data.sources import Counts
from mmbridge.errors import DataError

_FORMAT = 2
"""Another number when a table comes to hold something else."""

Offsets = NDArray[np.int64]


@dataclass(slots=True)
class ShardTable:
    """Samples in the order of the shards.

    ``ends`` (shards): samples up to and with each shard. ``keys``: the bytes of all keys, ``key_ends`` (samples) where
    each stops. ``extents`` (members, 2): offset and size, ``extent_ends`` (samples) where those of each sample stop.
    ``counts`` (samples, 4): as ``Record.counts`` has them. ``faults``: by sample, where it has one.
    """

    ends: Offsets
    keys: NDArray[np.uint8]
    key_ends: Offsets
    extents: Offsets
    extent_ends: Offsets
    counts: Counts
    faults: dict[int, DataError]

    def __len__(self) -> int:
        return len(self.key_ends)

    def shard(self, index: int) -> int:
        """Which shard a sample is in."""
        return int(np.searchsorted(self.ends, index, side="right"))

    def entry(self, index: int) -> Entry:
        """A sample as it was found."""
        key = bytes(_piece(self.keys, self.key_ends, index)).decode("utf-8", "surrogateescape")
        extents = [(offset, size) for offset, size in _piece(self.extents, self.extent_ends, index).tolist()]
        return Entry(key, extents, self.faults.get(index))


_ARRAYS = [each.name for each in fields(ShardTable) if each.name != "faults"]


def tabled(shards: Iterable[Iterable[tuple[Entry, Sequence[int]]]]) -> ShardTable:
    """Of the entries of each shard, and what each holds."""
    ends, key_ends, extent_ends, extents = array("q"), array("q"), array("q"), array("q")
    keys, counts, faults = bytearray(), array("i"), dict[int, DataError]()
    for shard in shards:
        for entry, held in shard:
            if entry.fault is not None:
                faults[len(key_ends)] = entry.fault
            keys += entry.key.encode("utf-8", "surrogateescape")
            key_ends.append(len(keys))
            for extent in entry.extents:
                extents.extend(extent)
            extent_ends.append(len(extents) // 2)
            counts.extend(held)
        ends.append(len(key_ends))
    return ShardTable(
        ends=np.asarray(ends),
        keys=np.frombuffer(keys, np.uint8),
        key_ends=np.asarray(key_ends),
        extents=np.asarray(extents).reshape(-1, 2),
        extent_ends=np.asarray(extent_ends),
        counts=np.asarray(counts).reshape(-1, len(PARTS)),
        faults=faults,
    )


def kept(shards: Sequence[Path], told: Sequence[object], make: Callable[[], ShardTable]) -> ShardTable:
    """The table of these shards, made if there is none that still holds.

    Args:
        told: what else a table depends on, as it is written out in text.
    """
    try:
        facts = [os.stat(shard) for shard in shards]
    except OSError:  # whoever reads it says what is wrong
        return make()
    named = [[str(shard), os.path.abspath(shard)] for shard in shards]
    place = place_of("shard_tables", [_FORMAT, named, list(map(str, told))])
    state = [[fact.st_size, fact.st_mtime_ns] for fact in facts]
    table = _read(place, state)
    if table is None:
        table = make()
        if len(table) >= KEPT_FROM:
            faults = [(index, (fault.where, fault.problem, fault.fix)) for index, fault in table.faults.items()]
            write_kept(place, state, {name: getattr(table, name) for name in _ARRAYS}, json.dumps(faults))
    return table


def _read(place: Path, state: object) -> ShardTable | None:
    found = read_kept(place, state)
    if found is None:
        return None
    arrays, note = found
    try:
        return ShardTable(**arrays, faults={index: DataError(*said) for index, said in json.loads(note)})
    except (ValueError, TypeError):
        return None


def _piece(values: NDArray[Any], ends: Offsets, index: int) -> NDArray[Any]:
    """What belongs to a sample: from the end of the one before to its own."""
    return values[ends[index - 1] if index else 0 : ends[index]]
