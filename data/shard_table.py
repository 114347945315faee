"""The samples of many shards as a few arrays: where their members stand, and what each holds.

To make it, every header and every JSON of every shard is read. It is kept in ``mmbridge/shard_tables`` under
``XDG_CACHE_HOME`` (``~/.cache``) as safetensors, and read from there while no shard's size or time has changed.
"""

import json
import os
import tempfile
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mmbridge.cache import cache_folder
from mmbridge.data.record import PARTS
from mmbridge.data.shard_index import Entry
from mmbridge.data.sources import Counts
from mmbridge.errors import DataError

KEPT_FROM = 10_000
"""Samples from which on a table is kept: so many take half a second."""
_FORMAT = 1
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
    place = cache_folder() / "shard_tables" / f"{_hash([_FORMAT, named, list(map(str, told))])}.safetensors"
    state = _hash([[fact.st_size, fact.st_mtime_ns] for fact in facts])
    table = _read(place, state)
    if table is None:
        table = make()
        if len(table) >= KEPT_FROM:
            _write(place, state, table)
    return table


def _read(place: Path, state: str) -> ShardTable | None:
    """The table kept there, unless it is of other contents, is damaged or is not there."""
    try:
        with safe_open(place, "np") as file:
            told = file.metadata()
            if told["state"] != state:
                return None
            faults = {index: DataError(*said) for index, said in json.loads(told["faults"])}
            return ShardTable(**{name: file.get_tensor(name) for name in _ARRAYS}, faults=faults)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError):
        return None


def _write(place: Path, state: str, table: ShardTable) -> None:
    """In one move, so that a reader sees the old or the new; a table that cannot be kept is made again."""
    faults = [(index, (fault.where, fault.problem, fault.fix)) for index, fault in table.faults.items()]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            part = Path(folder) / place.name
            save_file(
                {name: getattr(table, name) for name in _ARRAYS}, part, {"state": state, "faults": json.dumps(faults)}
            )
            os.replace(part, place)
    except (OSError, SafetensorError):
        return


def _hash(value: object) -> str:
    return sha256(json.dumps(value).encode()).hexdigest()


def _piece(values: NDArray[Any], ends: Offsets, index: int) -> NDArray[Any]:
    """What belongs to a sample: from the end of the one before to its own."""
    return values[ends[index - 1] if index else 0 : ends[index]]
