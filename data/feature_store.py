"""The features of one encoder on disk: a folder.

    features.json           what they were made with, and their number format
    index.safetensors       keys (n, 16) sorted, with the shard and the place in it of each; every shard's size
    00000.safetensors …     shards

The index is made of the shards' keys when all are written. It is memory-mapped: of ten million keys a look-up touches
two dozen.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmbridge.data.feature_origin import Origin, difference
from mmbridge.data.feature_shards import AGAIN, FeatureShard, read_tensors, write_tensors
from mmbridge.data.media_key import KEY_BYTES, KEY_DTYPE, Keys, keys_of
from mmbridge.encoders.base import Stored
from mmbridge.errors import FeatureError

FORMAT, VERSION = "mmbridge features", 1
ORIGIN, INDEX = "features.json", "index.safetensors"
_SHARDS = "[0-9]*.safetensors"


class FeatureStore:
    """Looks features up by key. Shards are opened when first asked; a copy for another process opens them anew.

    Raises:
        FeatureError: there is no finished folder, or a shard is missing or was cut off.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / INDEX).exists():
            fix = "make them, or go on making them, with mmbridge data cache"
            raise FeatureError(folder, f"expected finished features, found no {INDEX}", fix)
        found = read_tensors(folder / INDEX, ("keys", "shards", "places", "numbers", "sizes"))
        self._keys = keys_of(found["keys"].numpy())
        self._shard, self._place = found["shards"].numpy(), found["places"].numpy()
        self._opened: dict[int, FeatureShard] = {}
        for number, size in zip(found["numbers"].tolist(), found["sizes"].tolist(), strict=True):
            path = shard_path(folder, number)
            held = path.stat().st_size if path.exists() else None
            if held != size:
                found_ = "none" if held is None else f"{held:,}"
                fix = AGAIN if held is not None else "run mmbridge data cache again, which makes it anew"
                raise FeatureError(path, f"expected a shard of {size:,} bytes, found {found_}", fix)

    def __len__(self) -> int:
        """How many media there are features of."""
        return len(self._keys)

    def __reduce__(self) -> tuple[type["FeatureStore"], tuple[Path]]:
        return FeatureStore, (self.folder,)

    def find(self, key: bytes) -> Stored | None:
        """The features of a medium, if they are there.

        Raises:
            FeatureError: they are, and are damaged.
        """
        asked = np.array(key, KEY_DTYPE)
        row = int(np.searchsorted(self._keys, asked))
        if row == len(self._keys) or self._keys[row] != asked:
            return None
        number = int(self._shard[row])
        if number not in self._opened:
            self._opened[number] = FeatureShard(shard_path(self.folder, number))
        shard, place = self._opened[number], int(self._place[row])
        if shard.keys[place] != asked:
            problem = "expected the places of the features in their shards, found others"
            raise FeatureError(self.folder / INDEX, problem, AGAIN)
        return shard[place]


def shard_path(folder: Path, number: int) -> Path:
    """Where the shard of this number is."""
    return folder / f"{number:05d}.safetensors"


def shard_numbers(folder: Path) -> list[int]:
    """Of the shards that are there."""
    return sorted(int(path.stem) for path in folder.glob(_SHARDS))


def begin(folder: Path, origin: Origin, dtype: str, *, anew: bool = False) -> Keys:
    """Makes a folder ready to be written to, or to be gone on with.

    Returns:
        the keys of the features that are there, sorted.

    Raises:
        FeatureError: it holds something else, a damaged shard, or features made with something else and not ``anew``.
    """
    described = folder / ORIGIN
    if described.exists():
        try:
            require_origin(folder, origin)
            if (found := _described(folder).get("dtype")) != dtype:
                raise FeatureError(folder, f"expected features in {dtype}, found them in {found}", _REPLACED)
        except FeatureError as error:
            if not anew:
                raise FeatureError(error.where, error.problem, _REPLACED) from None
            shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        found = min(each.name for each in folder.iterdir())
        raise FeatureError(folder, f"expected an empty folder or features, found {found}", "name another --out")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.partial"):
        old.unlink()
    if not described.exists():
        text = json.dumps({"format": FORMAT, "version": VERSION, "dtype": dtype, "made with": dict(origin)}, indent=2)
        described.write_text(text + "\n", encoding="utf-8")
    keys = [FeatureShard(shard_path(folder, number)).keys for number in shard_numbers(folder)]
    return np.sort(np.concatenate([np.empty(0, KEY_DTYPE), *keys]))


_REPLACED = "--anew replaces them; or name another --out"


def finish(folder: Path) -> None:
    """Writes the index over the shards that are there.

    Raises:
        FeatureError: a shard is damaged.
    """
    numbers = shard_numbers(folder)
    keys = [FeatureShard(shard_path(folder, number)).keys for number in numbers]
    joined = np.concatenate([np.empty(0, KEY_DTYPE), *keys])
    shards = np.repeat(np.array(numbers, np.int32), [len(each) for each in keys])
    places = np.concatenate([np.empty(0, np.int32), *(np.arange(len(each), dtype=np.int32) for each in keys)])
    order = np.argsort(joined, kind="stable")
    rows = np.frombuffer(joined[order].tobytes(), np.uint8).reshape(-1, KEY_BYTES)
    write_tensors(
        folder / INDEX,
        {
            "keys": torch.from_numpy(rows.copy()),
            "shards": torch.from_numpy(shards[order]),
            "places": torch.from_numpy(places[order]),
            "numbers": torch.tensor(numbers, dtype=torch.int64),
            "sizes": torch.tensor([shard_path(folder, each).stat().st_size for each in numbers], dtype=torch.int64),
        },
    )


def require_origin(folder: Path, origin: Origin) -> None:
    """Sees to it that features are those of an encoder as it is now.

    Raises:
        FeatureError: there are none, or they were made with something else, which is named.
    """
    described = _described(folder)
    if described.get("format") != FORMAT or described.get("version") != VERSION:
        problem = f"expected features of {origin['path']}, found none of format {VERSION}"
        raise FeatureError(folder, problem, "make them with mmbridge data cache")
    if differing := difference(origin, described["made with"]):
        expected, found = differing
        problem = f"expected features of {origin['path']} with {expected}, found them made with {found}"
        raise FeatureError(folder, problem, "make them anew with mmbridge data cache RECIPE --anew")


def _described(folder: Path) -> dict[str, Any]:
    """``features.json``; nothing where it cannot be read."""
    try:
        found = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
