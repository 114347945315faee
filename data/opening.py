"""Media opened by their kind, as encoders prepare them."""

from mmbridge.data.media import LIMITS, Limits, open_picture
from mmbridge.data.sample import Medium
from mmbridge.data.vectors import Vectors, open_vectors
from mmbridge.encoders.base import Picture


def open_medium(medium: Medium, limits: Limits = LIMITS) -> Picture | Vectors:
    """Its pixels, or its vectors.

    Raises:
        MediaError: as for ``open_picture`` and ``open_vectors``.
    """
    return open_vectors(medium, limits) if medium.kind == "vector" else open_picture(medium, limits)
