"""A medium by its content: what its features are found under, whatever it is called and wherever it lies."""

import hashlib

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from mmbridge.data.media import LIMITS, Limits, file_bytes, open_image
from mmbridge.data.sample import Medium
from mmbridge.data.vectors import open_vectors

KEY_BYTES = 16
Keys = NDArray[np.bytes_]
"""(n,) keys of ``KEY_DTYPE``. All are of one length: zeros at the end, which numpy leaves off, mislead nobody."""
KEY_DTYPE = np.dtype(f"S{KEY_BYTES}")


def key_of(medium: Medium, limits: Limits = LIMITS) -> bytes:
    """BLAKE2b of a file's bytes; of a picture in memory, of its size and its pixels as ``open_image`` gives them; of
    vectors, of their shape and numbers as ``open_vectors`` gives them, be they in memory or rows of a file.

    A file of anything else is read and not decoded.

    Raises:
        MediaError: it cannot be read.
    """
    if medium.kind == "vector":
        vectors = open_vectors(medium, limits)
        hashed = hashlib.blake2b(digest_size=KEY_BYTES, person=b"vectors")
        hashed.update(f"{vectors.shape}:".encode())
        hashed.update(vectors.tobytes())
        return hashed.digest()
    if not isinstance(medium.source, Image):
        return hashlib.blake2b(file_bytes(medium, limits), digest_size=KEY_BYTES, person=b"file").digest()
    image = open_image(medium, limits)
    hashed = hashlib.blake2b(digest_size=KEY_BYTES, person=b"pixels")
    hashed.update(f"{image.width}x{image.height}:".encode())
    hashed.update(image.tobytes())
    return hashed.digest()


def keys_of(rows: NDArray[np.uint8]) -> Keys:
    """Keys from their bytes (n, 16), which are shared."""
    return np.ascontiguousarray(rows).view(KEY_DTYPE)[:, 0]


def among(keys: Keys, known: Keys) -> NDArray[np.bool_]:
    """Which keys are among the ``known`` ones, which are sorted."""
    if not len(known):
        return np.zeros(len(keys), np.bool_)
    places = np.searchsorted(known, keys).clip(max=len(known) - 1)
    found: NDArray[np.bool_] = known[places] == keys
    return found
