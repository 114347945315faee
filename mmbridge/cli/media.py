"""The MEDIA arguments of a verb: files, rows of tables of vectors (``items.npy#17``), and folders of images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mmbridge.data.sample import Medium
from mmbridge.errors import MediaError

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


def expand(arguments: Sequence[str]) -> list[Path]:
    """The files meant by the arguments; a folder stands for the images directly in it, in order of name.

    Raises:
        MediaError: a folder without images.
    """
    paths: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if not path.is_dir():
            paths.append(path)
            continue
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGES)
        if not inside:
            raise MediaError(path, "expected a folder of images, found none in it")
        paths += inside
    return paths


def read(path: Path) -> Medium:
    """A file, or vectors in one, opened, so that a bad one is known before anything runs on it.

    Raises:
        MediaError: it is missing, empty, damaged, too large, or neither an image nor vectors.
    """
    from mmbridge.data.media import open_image
    from mmbridge.data.media_paths import kind_named
    from mmbridge.data.vectors import open_vectors

    medium = Medium(kind_named(str(path)), path, str(path))
    return replace(medium, source=open_vectors(medium) if medium.kind == "vector" else open_image(medium))
