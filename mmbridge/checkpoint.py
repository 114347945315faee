"""Checkpoints of a stage in work: folders that are whole or not there.

    step-00000400/
        state.safetensors     tensors
        state.json            everything else
        manifest.json         size and SHA-256 of each of the other files

It speaks of parameters and draws, not of processes and shards, so that any number of processes and any engine can go
on from it. A checkpoint is written under another name, synced to disk and then renamed, so that neither a crash nor a
full disk can leave half of one; on reading every file is held against the manifest. Nothing is pickled.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

TENSORS, VALUES, MANIFEST = "state.safetensors", "state.json", "manifest.json"
_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True, slots=True)
class State:
    """What training needs to go on: tensors by name, in main memory, and numbers and names that JSON can hold."""

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]


class DamagedError(Exception):
    """A checkpoint that is not as its manifest says."""


def steps(folder: Path) -> list[int]:
    """The steps there are checkpoints of, the newest first, damaged ones included."""
    names = (_NAME.fullmatch(each.name) for each in folder.iterdir()) if folder.is_dir() else ()
    return sorted((int(name[1]) for name in names if name), reverse=True)


def write(folder: Path, step: int, state: State, keep: int) -> None:
    """Adds a checkpoint, then removes all but the newest ``keep``.

    Raises:
        OSError: it cannot be written; those already there are untouched.
    """
    place = _place(folder, step)
    partial = place.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        tensors = {name: each.contiguous() for name, each in state.tensors.items()}
        try:
            save_file(tensors, partial / TENSORS)
        except SafetensorError as error:  # what the system said is in its text alone
            raise OSError(errno.EIO, str(error), str(partial)) from error
        (partial / VALUES).write_text(json.dumps(dict(state.values)), encoding="utf-8")
        manifest = {name: _facts(partial / name) for name in (TENSORS, VALUES)}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        for each in (*partial.iterdir(), partial):
            _sync(each)
        shutil.rmtree(place, ignore_errors=True)
        os.replace(partial, place)
        _sync(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for old in steps(folder)[keep:]:
        shutil.rmtree(_place(folder, old), ignore_errors=True)


def read(folder: Path, step: int) -> State:
    """The checkpoint of a step.

    Raises:
        DamagedError: a file is missing, or is not what was written.
    """
    place = _place(folder, step)
    try:
        manifest = json.loads((place / MANIFEST).read_bytes())
        for name in (TENSORS, VALUES):
            if _facts(place / name) != manifest[name]:
                raise DamagedError(f"{place / name}: expected what its manifest says, found other contents")
        return State(load_file(place / TENSORS), json.loads((place / VALUES).read_bytes()))
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise DamagedError(f"{place}: expected a whole checkpoint, found a damaged one ({error})") from error


def _facts(path: Path) -> dict[str, Any]:
    """What the manifest says of a file."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _place(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk; Windows cannot for folders, and need not."""
    if os.name == "posix" or path.is_file():
        handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
