"""What a source yields and what a user passes in: messages whose content is text and media in order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from mmbridge.llm.templates import TemplateName

MediumKind = Literal["image", "audio", "video", "vector"]
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Medium:
    """One image, sound, video, or an embedding of one or a few vectors, not opened yet.

    ``source`` is a path (of a vector also a row of a table, ``items.npy#17``: ``mmbridge.data.vectors``), the bytes of
    a file, or a picture or an array of vectors already in memory; ``name`` is what errors call it.
    """

    kind: MediumKind
    source: "Path | bytes | Image | NDArray[np.floating]"
    name: str = "media in memory"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; ``content`` is text and media in the order they are read."""

    role: Role
    content: tuple[str | Medium, ...]

    @property
    def media(self) -> tuple[Medium, ...]:
        return tuple(part for part in self.content if isinstance(part, Medium))


@dataclass(frozen=True, slots=True)
class Sample:
    """One training or evaluation example.

    ``truth`` holds what evaluation compares with: ``caption`` and ``references``, ``question`` and ``answers``,
    ``facts``, ``kind`` and ``split``, whichever the data set knows. ``others`` are samples about the same media that
    are drawn together with it. ``template`` names the one its source is written in, if it has one of its own.
    """

    id: str
    messages: tuple[Message, ...]
    truth: Mapping[str, Any] = field(default_factory=dict)
    others: "tuple[Sample, ...]" = ()
    template: "TemplateName | None" = None

    @property
    def media(self) -> tuple[Medium, ...]:
        return tuple(medium for message in self.messages for medium in message.media)


def conversation(*turns: tuple[Role, Sequence[str | Medium]]) -> tuple[Message, ...]:
    """Messages from ``(role, parts)`` pairs."""
    return tuple(Message(role, tuple(parts)) for role, parts in turns)
