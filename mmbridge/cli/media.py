"""The MEDIA arguments of a verb: files, and folders of files."""

from collections.abc import Sequence
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
    """A file, decoded, so that a bad one is known before anything runs on it.

    Raises:
        MediaError: it is missing, empty, damaged, too large or no image.
    """
    from mmbridge.data.media import open_image

    return Medium("image", open_image(Medium("image", path, str(path))), str(path))
