"""Media decoded, encoded and written to shards, in an order and in batches that depend on nothing but the media."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils.data import Dataset

from mmbridge.data.batch import BadSample, Batch
from mmbridge.data.feature_shards import write_shard
from mmbridge.data.feature_store import shard_numbers, shard_path
from mmbridge.data.media_key import KEY_BYTES
from mmbridge.data.opening import open_medium
from mmbridge.data.progress import Waiting
from mmbridge.data.survey import Reading, Survey
from mmbridge.data.workers import read_ahead
from mmbridge.encoders.base import Encoder, Preparation, Prepared, Stored, Views
from mmbridge.encoders.stored import apart
from mmbridge.errors import FeatureError, UserError

SHARD_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class Manner:
    """How features are written: their number format, how many media are encoded at once, how many bytes of features a
    shard has at most (unless one medium has more), and how many processes decode."""

    dtype: torch.dtype = torch.bfloat16
    batch: int = 16
    shard_bytes: int = SHARD_BYTES
    workers: int = 0


def write_features(
    name: str, folder: Path, encoder: Encoder, readings: Sequence[Reading], media: Survey, manner: Manner
) -> list[BadSample]:
    """Writes an encoder's features of media, none of which are there, to new shards of a folder.

    Every shard begins with a batch of its own, so writing that was stopped goes on with the batches it would have had.

    Args:
        name: of the encoder, for the progress shown.
        media: what to encode.

    Returns:
        media that cannot be decoded, and are left out.

    Raises:
        UserError: a medium cannot be decoded, and its reading skips none; or there is no room on the disk.
        FeatureError: the number format cannot hold the features.
        OSError: a shard cannot be written.
    """
    count, bad = len(media.keys), list[BadSample]()
    view_bytes = encoder.facts.tokens * encoder.facts.width * manner.dtype.itemsize
    _require_room(folder, view_bytes * count)
    per_shard = max(1, manner.shard_bytes // (view_bytes * encoder.prepare.most_views))
    shards = [_cut(range(start, min(start + per_shard, count)), manner.batch) for start in range(0, count, per_shard)]
    loader = read_ahead(
        _Decoded(readings, media, encoder.prepare),
        manner.workers,
        batch_sampler=[rows for batches in shards for rows in batches],
        collate_fn=_Together(name),
    )
    decoded, number = iter(loader), max(shard_numbers(folder), default=-1) + 1
    with Waiting(f"encoding {name}", count) as waiting:
        for batches in shards:
            keys, features = list[bytes](), list[Stored]()
            for asked in batches:
                rows, batch = next(decoded)
                for row, each in zip([row for row in asked if row not in rows], batch.bad, strict=True):
                    if not (readings[media.places[row, 0]].skips and each.at_fault):
                        raise each.error
                    bad.append(each)
                keys += [media.keys[row].ljust(KEY_BYTES, b"\0") for row in rows]
                features += _encoded(folder, encoder, batch.views[name], manner.dtype)
                waiting.advance(len(asked))
            if keys:
                write_shard(shard_path(folder, number), keys, features)
                number += 1
    return bad


def _cut(rows: range, size: int) -> list[range]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@torch.no_grad()
def _encoded(folder: Path, encoder: Encoder, views: Sequence[Prepared], dtype: torch.dtype) -> list[Stored]:
    if not views:
        return []
    found = encoder.encode(views)
    values = found.values.to(dtype)
    if not bool(values.isfinite().all()):
        word = str(dtype).removeprefix("torch.")
        problem = f"expected finite features, found some that are not in {word}"
        raise FeatureError(folder, problem, "try another --dtype")
    return apart(replace(found, values=values.cpu(), mask=found.mask.cpu()))


def _require_room(folder: Path, least: int) -> None:
    free = shutil.disk_usage(folder).free
    if least > free:
        problem = f"expected room for at least {least / 1e9:,.1f} GB of features, found {free / 1e9:,.1f} GB"
        raise UserError(folder, problem, "make room, or name another --out")


_Row = tuple[int, Views | BadSample]


class _Decoded(Dataset[_Row]):
    """Media by number, decoded and prepared."""

    def __init__(self, readings: Sequence[Reading], media: Survey, prepare: Preparation) -> None:
        self._readings, self._places, self._prepare = readings, media.places, prepare

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, row: int) -> _Row:
        reading, *place = self._places[row].tolist()
        try:
            medium = self._readings[reading].medium(*place)
        except UserError as error:
            return row, BadSample(error.where, error)
        try:
            return row, self._prepare(open_medium(medium))
        except UserError as error:
            return row, BadSample(medium.name, error)


@dataclass(frozen=True, slots=True)
class _Together:
    """From rows to the numbers of those that could be decoded, and a batch of them and of those that could not."""

    name: str

    def __call__(self, rows: Sequence[_Row]) -> tuple[list[int], Batch]:
        views = [each for _, each in rows if isinstance(each, Views)]
        bad = [each for _, each in rows if isinstance(each, BadSample)]
        return [row for row, each in rows if isinstance(each, Views)], Batch((), {self.name: [*views]}, (), tuple(bad))
