"""Records of a JSON file: a ``metadata.jsonl`` beside its media, LLaVA's JSON, chat JSON lines."""

from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mmbridge.data.json_rows import JsonRows
from mmbridge.data.media_paths import found_in
from mmbridge.data.messages import shown
from mmbridge.data.record import PARTS, Record
from mmbridge.data.rows import Row, named_media, read_record
from mmbridge.errors import DataError

Read = Callable[[Row, Path, str], Record]
"""A row, the media root, and file and line for errors."""


class FileRecords:
    """The records of a JSON file; ``counts`` says what each holds, as ``Record.counts`` does.

    Media are not touched before a sample is used, so that a missing one falls under ``on_bad_sample``.

    Args:
        late: a row that cannot be read (a line that is no JSON, a column missing or of the wrong type, marks and
            media that differ) is an error when it is used, and holds one sample until then; else it is one when the
            file is opened.

    Raises:
        DataError: with file and line, for the first row that cannot be read, or because the file is no JSON.
    """

    def __init__(self, path: Path, root: Path, read: Read, *, late: bool = False) -> None:
        held = array("i")
        self._rows = JsonRows(path, lambda parse, where: held.extend(held_by(lambda: read(parse(), root, where), late)))
        self._root, self._read = root, read
        self.counts = np.asarray(held).reshape(-1, len(PARTS))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int, /) -> Record:
        row, where = self._rows[index]
        return self._read(row, self._root, where)

    def where(self, index: int) -> str:
        """File and line."""
        return self._rows.where(index)


def held_by(read: Callable[[], Record], late: bool) -> tuple[int, ...]:
    """What a record holds; one of each part, if it cannot be read and this is to come out late."""
    try:
        return read().counts()
    except DataError:
        if not late:
            raise
        return (1,) * len(PARTS)


def folder_record(row: Row, root: Path, where: str) -> Record:
    """A row of a ``metadata.jsonl``: ``file_name`` beside the other columns (Hugging Face's imagefolder)."""
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        raise DataError(where, f"expected a column file_name, found {shown(name)}")
    return read_record(row, name, [found_in(root, name, where)], root, where)


def llava_record(row: Row, root: Path, where: str) -> Record:
    """A row with ``conversations``, and ``image`` if it has one."""
    return _conversation(row, root, where, "conversations")


def chat_record(row: Row, root: Path, where: str) -> Record:
    """A row with ``messages``, and ``images`` if its messages do not name them."""
    return _conversation(row, root, where, "messages")


def _conversation(row: Row, root: Path, where: str, column: str) -> Record:
    if row.get(column) is None:
        raise DataError(where, f"expected a column {column}, found {', '.join(row) or 'none'}")
    return read_record(row, Path(where).name, named_media(row, root, where), root, where)
