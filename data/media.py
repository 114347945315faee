"""The one place where media are opened and decoded.

Sizes are checked before anything is decoded: bytes from the file's size, pixels from the image's header.
"""

import re
import warnings
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.Image import DecompressionBombError, DecompressionBombWarning

from mmbridge.data.sample import Medium
from mmbridge.errors import MediaError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Decoders that may run. Pillow knows more, among them EPS, which starts Ghostscript."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused undecoded: files of more ``bytes``, images of more ``pixels`` or a longer ``ratio`` of sides.

    A strip of few pixels can still be a bomb: an encoder scales its shorter side up, and the longer one with it.
    """

    bytes: int = 64 * 2**20
    pixels: int = 80_000_000
    ratio: int = 200


LIMITS = Limits()

_EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}
"""Where a format is not called by its extension; MPO is a JPEG with more pictures behind the first."""


def open_image(medium: Medium, limits: Limits = LIMITS) -> Image.Image:
    """Decodes one image: RGB, upright (EXIF orientation applied), transparency over white, an animation's first frame.

    Raises:
        MediaError: missing, empty, damaged, too large, too narrow or not an image; the medium's name is in ``where``.
    """
    image, _ = _checked(medium, limits)
    return _decoded(image, medium.name)


def open_picture(medium: Medium, limits: Limits = LIMITS) -> Image.Image | NDArray[np.uint8]:
    """The same pixels sooner: those of a flawless JPEG as (H, W, 3) from libjpeg-turbo itself, all else from Pillow.

    Pillow reads more, and says what is wrong with the rest.

    Raises:
        MediaError: as for ``open_image``.
    """
    image, data = _checked(medium, limits)
    pixels = _flawless(image, data) if image.format == "JPEG" else None
    return _decoded(image, medium.name) if pixels is None else pixels


def _flawless(image: Image.Image, jpeg: bytes) -> NDArray[np.uint8] | None:
    """The pixels of a JPEG in colour or grey that is upright and in which nothing is damaged or out of place."""
    try:
        if image.mode not in ("RGB", "L") or image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            return None
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(jpeg, "RGB", strict=True)
    except Exception:  # Pillow will say it
        return None
    return pixels if pixels.shape == (image.height, image.width, 3) else None


def _checked(medium: Medium, limits: Limits) -> tuple[Image.Image, bytes]:
    """An image within the limits, not decoded yet, and its file: empty for a picture in memory."""
    if medium.kind != "image":
        raise MediaError(medium.name, f"expected an image, found {medium.kind}")
    image, data = medium.source, b""
    if not isinstance(image, Image.Image):
        data = file_bytes(medium, limits)
        image = _opened(data, medium.name, limits)
    if image.width * image.height > limits.pixels:
        raise _too_many(medium.name, image.width * image.height, limits)
    if max(image.size) > limits.ratio * min(image.size):
        problem = f"expected sides in a ratio of at most {limits.ratio}, found {image.width}×{image.height}"
        raise MediaError(medium.name, problem, "cut the image into parts")
    return image, data


def _decoded(image: Image.Image, name: str) -> Image.Image:
    try:
        image.load()
        return _rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        raise _damaged(name, error) from error


def image_size(medium: Medium, limits: Limits = LIMITS) -> tuple[int, int]:
    """Width and height of an upright image, from its header.

    Raises:
        MediaError: no header can be read.
    """
    image = medium.source
    if not isinstance(image, Image.Image):
        image = _opened(file_bytes(medium, limits), medium.name, limits)
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) > 4  # on its side
    return (image.height, image.width) if turned else image.size


def image_file(medium: Medium, limits: Limits = LIMITS) -> tuple[bytes, str]:
    """The bytes of an image file as they are, and the extension they ask for, whatever the file is called.

    All of it is decoded once, so that no damaged file is passed on. A picture in memory becomes a PNG.

    Raises:
        MediaError: as for ``open_image``.
    """
    if isinstance(medium.source, Image.Image):
        file = BytesIO()
        open_image(medium, limits).save(file, "PNG")
        return file.getvalue(), "png"
    data = file_bytes(medium, limits)
    open_picture(replace(medium, source=data), limits)
    with _opened(data, medium.name, limits) as image:
        format = str(image.format)
    return data, _EXTENSIONS.get(format, format.lower())


def _opened(data: bytes, name: str, limits: Limits) -> Image.Image:
    """An image whose header has been read and whose pixels have not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DecompressionBombWarning)
            return Image.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        found = f"a file that begins with {data[:12]!r}"
        raise MediaError(name, f"expected an image ({', '.join(FORMATS)}), found {found}") from None
    except (DecompressionBombError, DecompressionBombWarning) as error:
        pixels = re.search(r"\d+", str(error))  # Pillow's own cap speaks first, before the size can be asked for
        raise _too_many(name, int(pixels[0]) if pixels else 0, limits) from None
    except Exception as error:
        raise _damaged(name, error) from error


def file_bytes(medium: Medium, limits: Limits = LIMITS) -> bytes:
    """The bytes of a medium's file, never more than the limit.

    Raises:
        MediaError: there is none, it is empty, too large or cannot be read.
    """
    name, data = medium.name, medium.source
    if isinstance(data, Path):
        try:
            with data.open("rb") as file:
                data = file.read(limits.bytes + 1)
        except FileNotFoundError:
            raise MediaError(name, "expected an image, found no such file") from None
        except IsADirectoryError:
            raise MediaError(name, "expected an image, found a folder") from None
        except (OSError, ValueError) as error:
            raise MediaError(name, f"cannot be read ({error})") from None
    assert isinstance(data, bytes)
    if not data:
        raise MediaError(name, "expected an image, found an empty file")
    if len(data) > limits.bytes:
        raise MediaError(name, f"expected at most {limits.bytes:,} bytes, found more", "scale the image down")
    return data


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _from_deep(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _from_deep(image: Image.Image) -> Image.Image:
    """Greys of 16 bits scaled to 8; Pillow's own conversion would cut them off at 255."""
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise ValueError(f"values of type {values.dtype} are not pixels of 8 or 16 bits")
    return Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")


def _too_many(name: str, pixels: int, limits: Limits) -> MediaError:
    return MediaError(name, f"expected at most {limits.pixels:,} pixels, found {pixels:,}", "scale the image down")


def _damaged(name: str, error: Exception) -> MediaError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return MediaError(name, f"expected a whole image, found a damaged one ({reason})")
