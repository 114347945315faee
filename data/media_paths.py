"""Paths that stand in data files: they start from a media root and may not leave it."""

import os.path
from pathlib import Path

from mmbridge.data.sample import Medium, MediumKind
from mmbridge.errors import DataError

NUMPY, SAFETENSORS = ".npy", ".safetensors"
VECTORS = (NUMPY, SAFETENSORS)
"""What files of vectors end in."""


def kind_named(name: str) -> MediumKind:
    """What a file of this name holds: vectors, or else an image. ``#`` and a row may stand behind it."""
    return "vector" if name.endswith(VECTORS) or name.rpartition("#")[0].endswith(VECTORS) else "image"


def within(root: Path, name: str, where: str) -> Path:
    """The file ``name`` under ``root``; an absolute ``name`` must lie there too.

    Links below the root are followed: they are the owner's, and download caches are made of them.

    Raises:
        DataError: the path leaves the root; ``where`` is the file and line that holds it.
    """
    folder = os.path.abspath(root)
    path = os.path.normpath(os.path.join(folder, name))
    if "\0" in name or os.path.commonpath([folder, path]) != folder or path == folder:
        raise DataError(
            where, f"expected media inside {root}, found {name!r}", "say media_root to allow another folder"
        )
    return Path(path)


def found_in(root: Path, name: str, where: str) -> Medium:
    """The medium ``name`` under ``root``, called by its path and by where it was named."""
    return Medium(kind_named(name), within(root, name, where), f"{name} ({where})")
