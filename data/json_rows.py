"""Random access to the rows of a JSON file, be it one array or an object a line.

Only where each row stands is kept in memory, so that workers share nothing large.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmbridge.errors import DataError

Row = dict[str, Any]
Parse = Callable[[], Row]
"""A row that has been found and is parsed when it is called: a DataError with file and line, if it cannot be."""
Place = tuple[int, int, int]
"""Where a row stands: first byte, first byte behind it, line."""

_SPACE = re.compile(r"[ \t\r\n]*")


class JsonRows:
    """The rows of a ``.json`` (an array) or ``.jsonl`` file, in order. The whole file is read once, when it is opened.

    Args:
        check: called for each row, with what parses it, and its file and line; what it raises is not caught.

    Raises:
        DataError: with file and line: no such file, not UTF-8, an array that is not JSON, no rows at all. A line that
            is not JSON and a row that is no object are errors when they are parsed, in ``check`` or when used.
    """

    def __init__(self, path: Path, check: Callable[[Parse, str], object]) -> None:
        self.path = path
        data = _bytes(path)
        body = 3 if data.startswith(b"\xef\xbb\xbf") else 0
        rows = _array(path, data, body) if data[body : body + 1000].lstrip()[:1] == b"[" else _lines(path, data, body)
        places = []
        for parse, place in rows:
            check(parse, f"{path}:{place[2]}")
            places.append(place)
        if not places:
            raise DataError(path, "expected rows, found none")
        self._places = np.array(places, np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int, /) -> tuple[Row, str]:
        """A row, and its file and line."""
        start, stop, _ = (int(number) for number in self._places[index])
        with self.path.open("rb") as file:
            file.seek(start)
            data = file.read(stop - start)
        return _row(data, self.where(index)), self.where(index)

    def where(self, index: int) -> str:
        """File and line."""
        return f"{self.path}:{self._places[index][2]}"


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(path, "expected a data file, found no such file") from None
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})") from None
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}", "expected UTF-8 text, found other bytes") from None
    return data


def _row(text: bytes, where: str) -> Row:
    try:
        return _object(json.loads(text), where)
    except (ValueError, RecursionError) as error:
        raise _not_json(where, error) from None


def _object(value: object, where: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(where, f"expected an object, found {type(value).__name__}")
    return value


def _lines(path: Path, data: bytes, start: int) -> Iterator[tuple[Parse, Place]]:
    """The rows of a file of lines; empty lines are passed over."""
    line = 0
    while start < len(data):
        line += 1
        stop = data.find(b"\n", start)
        stop = len(data) if stop < 0 else stop
        if text := data[start:stop].strip():
            yield partial(_row, text, f"{path}:{line}"), (start, stop, line)
        start = stop + 1


def _array(path: Path, data: bytes, start: int) -> Iterator[tuple[Parse, Place]]:
    """The rows of one array.

    The decoder counts characters. Read as Latin-1 every byte is one, so that they count bytes of the file; values are
    then read again, as UTF-8, unless that is the same.
    """
    text, decode, same = data.decode("latin-1"), json.JSONDecoder().raw_decode, data.isascii()
    line, counted = 1, 0

    def line_at(position: int) -> int:
        nonlocal line, counted
        line, counted = line + data.count(b"\n", counted, position), position
        return line

    def after_space(position: int) -> int:
        match = _SPACE.match(text, position)
        assert match is not None
        return match.end()

    position = after_space(after_space(start) + 1)
    more = text[position : position + 1] != "]"
    while more:
        try:
            row, stop = decode(text, position)
        except (ValueError, RecursionError) as error:
            fault = error.pos if isinstance(error, json.JSONDecodeError) else position
            raise _not_json(f"{path}:{line_at(fault)}", error) from None
        place = (position, stop, line_at(position))
        where = f"{path}:{place[2]}"
        yield partial(_object, row, where) if same else partial(_row, data[position:stop], where), place
        position = after_space(stop)
        more = text[position : position + 1] == ","
        if more:
            position = after_space(position + 1)
    if (found := text[position : position + 40].strip()) != "]":
        problem = f"found {found!r}" if found else "found the end of the file"
        raise DataError(f"{path}:{line_at(position)}", f"expected the array to end, {problem}")


def _not_json(where: str, error: Exception) -> DataError:
    reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
    return DataError(where, f"expected JSON, found an error in it ({reason})")
