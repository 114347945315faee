"""Conversations as the field writes them: ``messages`` of role and content, where content is text and media.

A part of a content is ``{"type": "text", "text": …}`` or an image: ``{"type": "image"}`` with one of ``path``,
``image``, ``url`` or ``base64``, or OpenAI's ``{"type": "image_url", "image_url": {"url": …}}``. An image part that
names nothing, and ``<image>`` in a text, take the next of the images that come with the row. Remote URLs are refused:
data are local, and no file of data may make this machine ask another for something.
"""

from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from PIL.Image import Image

from mmbridge.data.media_paths import found_in
from mmbridge.data.sample import Medium, Message, Role
from mmbridge.errors import DataError

MARK = "<image>"
ROLES: tuple[Role, ...] = ("system", "user", "assistant")


def parse_messages(raw: object, root: Path | None, where: str, media: Sequence[Medium] = ()) -> tuple[Message, ...]:
    """Messages from their JSON form, or from dictionaries that hold paths and pictures in memory.

    Args:
        root: the folder that paths start from and may not leave; ``None`` where they are the user's own.
        where: file and line, or the id, that errors name.
        media: images that come with the row, for parts and marks that name none.

    Raises:
        DataError: not messages, an unknown type, a remote URL, a path outside ``root``, marks and media that differ.
    """
    if not isinstance(raw, Sequence) or isinstance(raw, str | bytes) or not raw:
        raise DataError(where, f"expected a list of messages, found {shown(raw)}")
    queue = Media(media, where)
    messages = tuple(_message(each, root, where, queue) for each in raw)
    queue.close()
    return messages


class Media:
    """Hands out the images of a row in order, and sees to it that none is missing or left over."""

    def __init__(self, media: Sequence[Medium], where: str) -> None:
        self._rest: Iterator[Medium] = iter(media)
        self._given, self._asked, self._where = len(media), 0, where

    def next(self) -> Medium | None:
        """The next image; ``None`` past the last, which ``close`` then reports."""
        self._asked += 1
        return next(self._rest, None)

    def split(self, text: str) -> list[str | Medium]:
        """Text and the images that its marks stand for; white space behind a mark is the mark's own."""
        if MARK not in text:
            return [text]
        first, *rest = text.split(MARK)
        parts: list[str | Medium] = [first]
        for piece in rest:
            if medium := self.next():
                parts.append(medium)
            parts.append(piece.lstrip())
        return [part for part in parts if part]

    def close(self) -> None:
        if self._asked != self._given:
            problem = f"expected as many {MARK} as images, found {self._asked} {MARK} and {_images(self._given)}"
            raise DataError(self._where, problem)


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _message(raw: object, root: Path | None, where: str, queue: Media) -> Message:
    if not isinstance(raw, Mapping):
        raise DataError(where, f"expected a message with role and content, found {shown(raw)}")
    role, content = raw.get("role"), raw.get("content")
    if role not in ROLES:
        raise DataError(where, f"role: expected one of {', '.join(ROLES)}, found {shown(role)}")
    if isinstance(content, str):
        return Message(role, tuple(queue.split(content)))
    if not isinstance(content, Sequence):
        raise DataError(where, f"content: expected text or a list of parts, found {shown(content)}")
    parts: list[str | Medium] = []
    for part in content:
        parts += _part(part, root, where, queue)
    return Message(role, tuple(parts))


def _part(raw: object, root: Path | None, where: str, queue: Media) -> list[str | Medium]:
    if isinstance(raw, str | Medium):
        return [raw]
    kind = raw.get("type") if isinstance(raw, Mapping) else None
    if not isinstance(raw, Mapping) or kind not in ("text", "image", "image_url"):
        found = shown(kind if isinstance(raw, Mapping) else raw)
        raise DataError(where, f"content: expected parts of type text, image or image_url, found {found}")
    if kind == "text":
        if not isinstance(text := raw.get("text"), str):
            raise DataError(where, f"text: expected text, found {shown(text)}")
        return [text]
    keys = [key for key in ("path", "image", "url", "base64", "image_url") if raw.get(key) is not None]
    if len(keys) > 1:
        raise DataError(where, f"expected one source of an image, found {' and '.join(keys)}")
    if not keys:
        return [medium] if (medium := queue.next()) else []
    value = raw[keys[0]]
    if keys[0] == "image_url" and isinstance(value, Mapping):
        value = value.get("url")
    return [_image(value, keys[0], root, where)]


def _image(value: Any, key: str, root: Path | None, where: str) -> Medium:
    if isinstance(value, bytes | Image):
        return Medium("image", value, f"{key} ({where})")
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str):
        raise DataError(where, f"{key}: expected a path or an image, found {shown(value)}")
    if key == "base64":
        return Medium("image", _decoded(value, key, where), f"{key} ({where})")
    if value[:5].lower() == "data:":
        return Medium("image", _data_uri(value, key, where), f"{key} ({where})")
    if "://" in value:
        raise DataError(where, f"{key}: expected a local file, found the URL {value[:80]!r}", "download it first")
    return Medium("image", Path(value), value) if root is None else found_in(root, value, where)


def _data_uri(value: str, key: str, where: str) -> bytes:
    head, _, body = value.partition(",")
    if not head.lower().startswith("data:image/"):
        raise DataError(where, f"{key}: expected a data URI of an image, found {head[:40]!r}")
    return _decoded(body, key, where) if head.lower().endswith(";base64") else unquote_to_bytes(body)


def _decoded(value: str, key: str, where: str) -> bytes:
    try:
        return b64decode("".join(value.split()), validate=True)
    except ValueError as error:
        raise DataError(where, f"{key}: expected base64, found something else ({error})") from None


def shown(value: object) -> str:
    """A value in an error: short, on one line."""
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
