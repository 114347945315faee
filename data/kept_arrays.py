"""Arrays that took long to make, kept in the cache folder for as long as what they were made of stays the same."""

import json
import os
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mmbridge.cache import cache_folder

KEPT_FROM = 10_000
"""Samples from which on it pays to keep what was counted of files at hand: so many take half a second."""

Arrays = Mapping[str, NDArray[Any]]


def place_of(kind: str, told: object) -> Path:
    """The file of the arrays of a kind that depend on what is ``told`` (JSON)."""
    return cache_folder() / kind / f"{_hash(told)}.safetensors"


def read_kept(place: Path, state: object) -> tuple[Arrays, str] | None:
    """The arrays kept there, and the note beside them; none, if they were made in another state or are damaged."""
    try:
        with safe_open(place, "np") as file:
            told = file.metadata()
            if told["state"] != _hash(state):
                return None
            return {name: file.get_tensor(name) for name in file.keys()}, told["note"]  # noqa: SIM118
    except (OSError, ValueError, TypeError, KeyError, SafetensorError):
        return None


def write_kept(place: Path, state: object, arrays: Arrays, note: str = "") -> None:
    """In one move, so that a reader sees the old or the new; arrays that cannot be kept are made again."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            part = Path(folder) / place.name
            save_file(dict(arrays), part, {"state": _hash(state), "note": note})
            os.replace(part, place)
    except (OSError, SafetensorError):
        return


def _hash(value: object) -> str:
    return sha256(json.dumps(value).encode()).hexdigest()
