"""What users hand over in memory (paths, bytes, pictures, dictionaries), turned into media and messages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from mmbridge.data.media_paths import kind_named
from mmbridge.data.messages import parse_messages
from mmbridge.data.sample import Medium, Message
from mmbridge.errors import DataError

MediumInput = str | Path | bytes | Image | NDArray[Any] | Medium
"""A path, the bytes of an image file, a picture or an array of vectors in memory, or a medium."""

MessageInput = Message | Mapping[str, object]
"""A message, or a dictionary of role and content as chat templates take them."""


def as_medium(value: MediumInput) -> Medium:
    """An image, or vectors where it is an array of them or a file's name says so, unless it is a medium already.

    Raises:
        DataError: it is nothing that holds a medium.
    """
    if isinstance(value, Medium):
        return value
    if isinstance(value, str | Path):
        return Medium(kind_named(str(value)), Path(value), str(value))
    if isinstance(value, bytes | Image):
        return Medium("image", value)
    if isinstance(value, np.ndarray):
        return Medium("vector", value)
    problem = f"expected a path, bytes, a picture, an array of vectors or a Medium, found {type(value).__name__}"
    raise DataError("media", problem)


def as_media(values: MediumInput | Sequence[MediumInput]) -> list[Medium]:
    """One medium or several."""
    if isinstance(values, Sequence) and not isinstance(values, str | bytes):
        return [as_medium(value) for value in values]
    return [as_medium(values)]


def as_messages(raw: Sequence[MessageInput], where: str) -> tuple[Message, ...]:
    """A conversation; paths in dictionaries are the user's own and may lead anywhere.

    Raises:
        DataError: they are not messages.
    """
    messages = tuple(message for message in raw if isinstance(message, Message))
    return messages if raw and len(messages) == len(raw) else parse_messages(raw, None, where)
