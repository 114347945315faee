"""A shard: the features of some media in one safetensors file, read by memory map.

    values   (T, D_enc)   the real tokens of all views of all media, one after the other
    keys     (n, 16)      which media, by content
    media    (n, 5)       views of each, and its tiling: rows, columns, height, width, zeros where it has none
    views    (V, 4)       real tokens of each view, and its grid: time, height, width
    crc32    (n,)         of each medium's values, and of its rows of the other three

Nothing but the pages of the media asked for is read. A shard is written under another name, synced to disk and then
renamed, so that it is there whole or not at all.
"""

import errno
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmbridge.data.media_key import Keys, keys_of
from mmbridge.encoders.base import Grid, Stored, Tiling
from mmbridge.errors import FeatureError

AGAIN = "remove it and run mmbridge data cache again, which makes what it held anew"


class FeatureShard:
    """Features of media by their place in the file.

    Raises:
        FeatureError: it is missing, cut off or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = read_tensors(path, ("values", "keys", "media", "views", "crc32"))
        self._crc32 = self._rows["crc32"].tolist()
        self.keys: Keys = keys_of(self._rows["keys"].numpy())
        self._view_ends = np.cumsum(self._rows["media"][:, 0].numpy())
        self._token_ends = np.cumsum(self._rows["views"][:, 0].numpy())

    def __getitem__(self, place: int, /) -> Stored:
        """One medium's features; its values are pages of the file.

        Raises:
            FeatureError: they are not those that were written.
        """
        count, *tiling = self._rows["media"][place].tolist()
        end = int(self._view_ends[place])
        views = self._rows["views"][end - count : end].tolist()
        stop = int(self._token_ends[end - 1])
        values = self._rows["values"][stop - sum(view[0] for view in views) : stop]
        if _crc32(values, self._rows, place, slice(end - count, end)) != self._crc32[place]:
            raise FeatureError(self._path, f"expected the features that were written, found others ({place})", AGAIN)
        lengths, grids = tuple(view[0] for view in views), tuple(Grid(*view[1:]) for view in views)
        return Stored(values, lengths, grids, Tiling(*tiling) if any(tiling) else None)


def write_shard(path: Path, keys: Sequence[bytes], media: Sequence[Stored]) -> None:
    """Writes the features of some media, at least one, in main memory and all of one number format.

    Raises:
        OSError: it cannot be written.
    """
    none = Tiling(0, 0, 0, 0)
    tilings = [(len(each.grids), *astuple(each.tiling or none)) for each in media]
    views = [(length, *astuple(grid)) for each in media for length, grid in zip(each.lengths, each.grids, strict=True)]
    tensors = {
        "keys": torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).view(len(keys), -1),
        "media": torch.tensor(tilings),
        "views": torch.tensor(views),
    }
    ends = np.cumsum([count for count, *_ in tilings]).tolist()
    sums = [_crc32(media[n].values, tensors, n, slice(end - tilings[n][0], end)) for n, end in enumerate(ends)]
    tensors |= {"values": torch.cat([each.values for each in media]), "crc32": torch.tensor(sums)}
    write_tensors(path, tensors)


def read_tensors(path: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """Tensors of a file, each a memory map.

    Raises:
        FeatureError: the file is missing, cut off or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise FeatureError(path, f"expected a whole file of features, found none ({reason})", AGAIN) from error


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes a file that appears whole.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_suffix(".partial")
    try:
        partial.touch()
        mode = partial.stat().st_mode
        save_file(tensors, partial)
        partial.chmod(mode)  # safetensors leaves it to its owner alone
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except SafetensorError as error:  # what the system said is in its text alone
        code = errno.ENOSPC if "os error 28" in str(error) else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def _crc32(values: Tensor, tensors: Mapping[str, Tensor], place: int, views: slice) -> int:
    """Of all that a shard has of one medium."""
    found = 0
    for part in (values, tensors["keys"][place], tensors["media"][place], tensors["views"][views]):
        found = zlib.crc32(part.contiguous().view(torch.uint8).numpy().data, found)
    return found
