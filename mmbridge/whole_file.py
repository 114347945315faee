"""Files that are written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Where to write what shall be ``path``: it takes its place in one move at the end, and is gone after an error.

    Folders above it are made; what stood there before stands there until then. What is no file and no folder, such as a
    device or a pipe, is written to where it stands.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        part = Path(folder) / path.name
        yield part
        os.replace(part, path)


def write_whole(path: Path, text: str) -> None:
    """``text`` in UTF-8; characters it has no bytes for, such as those of undecodable file names, become ``?``."""
    with written_whole(path) as part:
        part.write_bytes(text.encode("utf-8", errors="replace"))
