"""The columns of a row, whatever file it stands in, and the record they make.

``text`` (or ``caption``), ``references``, ``facts``, ``objects``, ``split``, and ``questions`` of question, answers
and kind; or a conversation in ``messages`` or LLaVA's ``conversations``. Other columns are passed over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmbridge.data.llava import parse_conversations
from mmbridge.data.media_paths import found_in
from mmbridge.data.messages import parse_messages, shown
from mmbridge.data.record import Question, Record
from mmbridge.data.sample import Medium, Message
from mmbridge.errors import DataError

Row = Mapping[str, Any]

CONTENT = ("text", "caption", "questions", "messages", "conversations")
"""Columns of which a row has at least one."""
COLUMNS = ("id", "references", "facts", "objects", "split", *CONTENT)
"""All that are read, besides those of media."""


def read_record(row: Row, name: str, media: Sequence[Medium], root: Path | None, where: str) -> Record:
    """The record of a row.

    Args:
        name: its id, where the row has none.
        media: what comes with the row (the file named in it, or the shard's member).
        root: the folder that paths in ``messages`` start from.
        where: file and line, or shard and key, for errors.

    Raises:
        DataError: a column of the wrong type, or none of those that say something about the medium.
    """
    if not any(row.get(key) is not None for key in CONTENT):
        found = ", ".join(row) or "none"
        raise DataError(where, f"expected one of the columns {', '.join(CONTENT)}, found {found}")
    messages = None
    if row.get("messages") is not None:
        messages = parse_messages(row["messages"], root, where, media)
    elif row.get("conversations") is not None:
        messages = parse_conversations(row["conversations"], media, where)
    elif len(media) > 1:
        kinds = " and ".join(dict.fromkeys(f"{medium.kind}s" for medium in media))
        raise DataError(where, f"expected one medium a row or messages about them, found {len(media)} {kinds}")
    text = row.get("caption") if row.get("text") is None else row["text"]
    return Record(
        id=name if row.get("id") is None else str(row["id"]),
        medium=media[0] if media and messages is None else None,
        text=None if text is None else _text(text, "text", where),
        references=tuple(_text(each, "references", where) for each in _list(row, "references", where)),
        facts=tuple(_fact(each, where) for each in _list(row, "facts", where)),
        objects=tuple(_list(row, "objects", where)),
        questions=tuple(_question(each, where) for each in _list(row, "questions", where)),
        split=None if row.get("split") is None else _text(row["split"], "split", where),
        messages=messages,
    )


def named_media(row: Row, root: Path, where: str) -> list[Medium]:
    """The media of a row's ``image`` or ``images`` column, and of ``vector`` or ``vectors``; none if it has none.

    An image is a path, or ``bytes`` and ``path`` as the feature ``Image`` of ``datasets`` stores it; vectors a path.
    """
    return [*[_named(each, root, where) for each in _listed(row, "image")], *named_vectors(row, root, where)]


def named_vectors(row: Row, root: Path, where: str) -> list[Medium]:
    """The vectors of a row's ``vector`` or ``vectors`` column, such as ``items.npy#17``."""
    named = _listed(row, "vector")
    if wrong := [each for each in named if not isinstance(each, str)]:
        raise DataError(where, f"vector: expected a path or a list of paths, found {shown(wrong[0])}")
    return [replace(found_in(root, each, where), kind="vector") for each in named]


def _listed(row: Row, column: str) -> list[Any]:
    value = row.get(f"{column}s") if row.get(column) is None else row[column]
    return [] if value is None else value if isinstance(value, list) else [value]


def _named(value: object, root: Path, where: str) -> Medium:
    stored = value if isinstance(value, Mapping) else {"path": value}
    data, path = stored.get("bytes"), stored.get("path")
    if isinstance(data, bytes):
        return Medium("image", data, f"{path or 'image'} ({where})")
    if not isinstance(path, str):
        raise DataError(where, f"image: expected a path or a list of paths, found {shown(value)}")
    return found_in(root, path, where)


def row_of(record: Record) -> dict[str, Any]:
    """The columns of a record; with its media in their order, ``read_record`` makes an equal record of them."""
    questions = [{"question": q.question, "answers": list(q.answers), "kind": q.kind} for q in record.questions]
    columns = {
        "id": record.id,
        "text": record.text,
        "references": list(record.references),
        "facts": [list(fact) for fact in record.facts],
        "objects": list(record.objects),
        "questions": questions,
        "split": record.split,
        "messages": None if record.messages is None else [_message(message) for message in record.messages],
    }
    return {key: value for key, value in columns.items() if value not in (None, [])}


def _message(message: Message) -> dict[str, Any]:
    """A message whose text is in parts of its own, where no ``<image>`` in it is taken for a mark."""
    parts = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": part.kind} for part in message.content
    ]
    return {"role": message.role, "content": parts}


def _list(row: Row, key: str, where: str) -> list[Any]:
    value = row.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise DataError(where, f"{key}: expected a list, found {shown(value)}")
    return value


def _text(value: object, key: str, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(where, f"{key}: expected text, found {shown(value)}")
    return value


def _fact(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise DataError(where, f"facts: expected lists of text, found {shown(value)}")
    return tuple(_text(word, "facts", where) for word in value)


def _question(value: object, where: str) -> Question:
    if not isinstance(value, dict):
        raise DataError(where, f"questions: expected question, answers and kind, found {shown(value)}")
    answers = value.get("answers")
    if not isinstance(answers, list) or not answers:
        raise DataError(where, f"answers: expected a list of at least one, found {shown(answers)}")
    texts = tuple(_text(answer, "answers", where) for answer in answers)
    return Question(
        _text(value.get("question"), "question", where), texts, _text(value.get("kind") or "", "kind", where)
    )
