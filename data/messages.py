"""Conversations as the field writes them: ``messages`` of role and content, where content is text and media.

A part of a content is ``{"type": "text", "text": …}`` or an image: ``{"type": "image"}`` with one of ``path``,
``image``, ``url`` or ``base64``, or OpenAI's ``{"type": "image_url", "image_url": {"url": …}}``; or vectors:
``{"type": "vector"}`` with ``path`` or ``vector``, such as ``items.npy#17``. A part that names nothing, and ``<image>``
or ``<vector>`` in a text, take the next image or vectors that come with the row. Remote URLs are refused: data are
local, and no file of data may make this machine ask another for something.
"""

import re
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
from PIL.Image import Image

from mmbridge.data.media_paths import found_in
from mmbridge.data.sample import Medium, MediumKind, Message, Role
from mmbridge.errors import DataError

MARKS: dict[str, MediumKind] = {"<image>": "image", "<vector>": "vector"}
_SOURCES: dict[object, tuple[str, ...]] = {
    "image": ("path", "image", "url", "base64", "image_url"),
    "image_url": ("path", "image", "url", "base64", "image_url"),
    "vector": ("path", "vector"),
}
"""For each type of part that is a medium, the keys that may name it."""
_TYPES, _SAID = "image, image_url or vector", {"image": "an image", "vector": "vectors"}
ROLES: tuple[Role, ...] = ("system", "user", "assistant")


def parse_messages(raw: object, root: Path | None, where: str, media: Sequence[Medium] = ()) -> tuple[Message, ...]:
    """Messages from their JSON form, or from dictionaries that hold paths and pictures in memory.

    Args:
        root: the folder that paths start from and may not leave; ``None`` where they are the user's own.
        where: file and line, or the id, that errors name.
        media: what comes with the row, for parts and marks that name none.

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
    """Hands out the media of a row in order, each kind by itself, and sees to it that none is missing or left over."""

    def __init__(self, media: Sequence[Medium], where: str) -> None:
        given = {kind: [medium for medium in media if medium.kind == kind] for kind in MARKS.values()}
        self._rest: dict[MediumKind, Iterator[Medium]] = {kind: iter(each) for kind, each in given.items()}
        self._given = Counter({kind: len(each) for kind, each in given.items()})
        self._asked, self._where = Counter[MediumKind](), where

    def next(self, kind: MediumKind = "image") -> Medium | None:
        """The next of a kind; ``None`` past the last, which ``close`` then reports."""
        self._asked[kind] += 1
        return next(self._rest[kind], None)

    def split(self, text: str) -> list[str | Medium]:
        """Text and the media that its marks stand for; white space behind a mark is the mark's own."""
        first, *rest = _MARK.split(text)
        parts: list[str | Medium] = [first]
        for mark, piece in zip(rest[::2], rest[1::2], strict=True):
            if medium := self.next(MARKS[mark]):
                parts.append(medium)
            parts.append(piece.lstrip())
        return [part for part in parts if part] if rest else [text]

    def close(self) -> None:
        for mark, kind in MARKS.items():
            asked, given = self._asked[kind], self._given[kind]
            if asked != given:
                found = f"{asked} {mark} and {given} {kind}{'' if given == 1 else 's'}"
                raise DataError(self._where, f"expected as many {mark} as {kind}s, found {found}")


_MARK = re.compile(f"({'|'.join(MARKS)})")


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
    if not isinstance(raw, Mapping) or kind not in ("text", *_SOURCES):
        found = shown(kind if isinstance(raw, Mapping) else raw)
        raise DataError(where, f"content: expected parts of type text, {_TYPES}, found {found}")
    if kind == "text":
        if not isinstance(text := raw.get("text"), str):
            raise DataError(where, f"text: expected text, found {shown(text)}")
        return [text]
    named: MediumKind = "vector" if kind == "vector" else "image"
    keys = [key for key in _SOURCES[kind] if raw.get(key) is not None]
    if len(keys) > 1:
        raise DataError(where, f"expected one source of {_SAID[named]}, found {' and '.join(keys)}")
    if not keys:
        return [medium] if (medium := queue.next(named)) else []
    value = raw[keys[0]]
    if named == "vector":
        return [_vector(value, keys[0], root, where)]
    if keys[0] == "image_url" and isinstance(value, Mapping):
        value = value.get("url")
    return [_image(value, keys[0], root, where)]


def _vector(value: Any, key: str, root: Path | None, where: str) -> Medium:
    if isinstance(value, np.ndarray):
        return Medium("vector", value, f"{key} ({where})")
    if not isinstance(value, str | Path):
        raise DataError(where, f"{key}: expected a path or an array, found {shown(value)}")
    return replace(_local(str(value), key, root, where), kind="vector")


def _local(value: str, key: str, root: Path | None, where: str) -> Medium:
    if "://" in value:
        raise DataError(where, f"{key}: expected a local file, found the URL {value[:80]!r}", "download it first")
    return Medium("image", Path(value), value) if root is None else found_in(root, value, where)


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
    return replace(_local(value, key, root, where), kind="image")


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
