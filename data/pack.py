"""Any data set that can be read, written anew as WebDataset shards."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmbridge.data.config import Format
from mmbridge.data.formats import open_records
from mmbridge.data.problem import Problem
from mmbridge.data.progress import waited_for
from mmbridge.data.writers import Members, members, write_members
from mmbridge.errors import DataError, SourceError, UserError


@dataclass(frozen=True, slots=True)
class Packed:
    """How many ``records`` the ``shards`` hold, and with how many ``images``; ``skipped`` says what was left out."""

    records: int
    shards: int
    images: int
    skipped: tuple[Problem, ...]


def pack(
    path: str | Path,
    folder: str | Path,
    format: Format | None = None,
    media_root: str | Path | None = None,
    *,
    per_shard: int = 1000,
    skip: bool = False,
) -> Packed:
    """Writes a data set as shards into ``folder``; read back, its records are equal to those before.

    Image files go over as they are. Every one is decoded once on the way, so that what is packed can be read.

    Args:
        path, format, media_root: as ``open_records`` takes them.
        folder: new or empty; shards appear in it when all are whole.
        per_shard: records of one shard.
        skip: leave records out that cannot be read, and list them; else the first one is an error.

    Raises:
        UserError: the data set or, unless ``skip``, a record or an image in it cannot be read; the folder cannot be
            written.
    """
    records, skipped = open_records(path, format, media_root, late=skip), list[Problem]()
    images = 0

    def samples() -> Iterator[Members]:
        nonlocal images
        for index in waited_for(range(len(records)), "packing", len(records)):
            try:
                sample = members(records[index])
            except UserError as error:
                if not skip or isinstance(error, SourceError):
                    raise
                skipped.append(Problem.of(error, records.where(index)))
                continue
            images += len(sample) - 1
            yield sample

    count = write_members(samples(), folder, per_shard)
    if count == 0:
        raise DataError(path, f"expected records to pack, found {len(skipped)} that cannot be read: {skipped[0].line}")
    return Packed(count, -(-count // per_shard), images, tuple(skipped))
