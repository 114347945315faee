"""Random access to the rows of a JSON file, be it one array or an object a line.

Only where each row stands is kept in memory, so that workers share nothing large; of the file never more than a window.
"""

import json
import re
from array import array
from codecs import BOM_UTF8, getincrementaldecoder
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mmbridge.errors import DataError

Row = dict[str, Any]
Parse = Callable[[], Row]
"""A row that has been found and is parsed when it is called: a DataError with file and line, if it cannot be."""
Place = tuple[int, int, int]
"""Where a row stands: first byte, first byte behind it, line."""

_SPACE = re.compile(r"[ \t\r\n]*")
_WINDOW = 2**20
"""Bytes of an array that are read at a time; more, where a row is larger."""


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
        places = array("q")
        with _opened(path) as file:
            for parse, place in _rows(path, file):
                check(parse, f"{path}:{place[2]}")
                places.extend(place)
        if not places:
            raise DataError(path, "expected rows, found none")
        self._places = np.asarray(places).reshape(-1, 3)

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


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise DataError(path, "expected a data file, found no such file") from None
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})") from None


def _rows(path: Path, file: BinaryIO) -> Iterable[tuple[Parse, Place]]:
    head = file.read(1000)
    body = len(BOM_UTF8) if head.startswith(BOM_UTF8) else 0
    file.seek(body)
    return _Array(path, file) if head[body:].lstrip()[:1] == b"[" else _lines(path, file)


def _row(text: bytes, where: str) -> Row:
    try:
        return _object(json.loads(text), where)
    except (ValueError, RecursionError) as error:
        raise _not_json(where, error) from None


def _object(value: object, where: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(where, f"expected an object, found {type(value).__name__}")
    return value


def _lines(path: Path, file: BinaryIO) -> Iterator[tuple[Parse, Place]]:
    """The rows of a file of lines; empty lines are passed over."""
    start = file.tell()
    for number, line in enumerate(file, start=1):
        where, stop = f"{path}:{number}", start + len(line)
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            raise _not_utf8(where) from None
        if text := line.strip():
            yield partial(_row, text, where), (start, stop, number)
        start = stop


class _Array:
    """The rows of one array, seen through a window that moves over the file.

    The decoder counts characters. Read as Latin-1 every byte is one, so that they count bytes of the file; values are
    then read again, as UTF-8, unless that is the same.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._start, self._text = file.tell(), ""  # the window's first byte, and what it shows
        self._at = 0  # how much of the window has been passed
        self._line, self._counted = 1, 0  # the line in which the window's character ``counted`` stands
        self._utf8 = getincrementaldecoder("utf-8")()
        self._decode = json.JSONDecoder().raw_decode

    def __iter__(self) -> Iterator[tuple[Parse, Place]]:
        self._next()
        self._at += 1
        more = self._next() != "]"
        while more:
            yield self._value()
            more = self._next() == ","
            if more:
                self._at += 1
                self._next()
        while len(self._text) - self._at < 40 and self._more():
            pass
        if (found := self._text[self._at : self._at + 40].strip()) != "]":
            problem = f"found {found!r}" if found else "found the end of the file"
            raise DataError(self._where(self._at), f"expected the array to end, {problem}")

    def _value(self) -> tuple[Parse, Place]:
        """The value at this place, passed."""
        while True:
            try:
                row, stop = self._decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if not self._more():
                    fault = error.pos if isinstance(error, json.JSONDecodeError) else self._at
                    raise _not_json(self._where(fault), error) from None
            else:
                if stop < len(self._text) or not self._more():
                    break
        where, text = self._where(self._at), self._text[self._at : stop]
        place = (self._start + self._at, self._start + stop, self._line)
        self._at = stop
        return partial(_object, row, where) if text.isascii() else partial(_row, text.encode("latin-1"), where), place

    def _next(self) -> str:
        """The next character that is no space; nothing at the end of the file."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _more(self) -> bool:
        """Moves the window on to where it has been passed, and shows more of the file; false at its end."""
        rest = self._text[self._at :]
        piece = self._file.read(max(_WINDOW, len(rest)))
        self._count(self._at)
        try:
            self._utf8.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            line = self._line + rest.count("\n") + error.object.count(b"\n", 0, error.start)
            raise _not_utf8(f"{self._path}:{line}") from None
        if piece:
            self._start, self._text = self._start + self._at, rest + piece.decode("latin-1")
            self._at = self._counted = 0
        return bool(piece)

    def _where(self, at: int) -> str:
        self._count(at)
        return f"{self._path}:{self._line}"

    def _count(self, at: int) -> None:
        self._line, self._counted = self._line + self._text.count("\n", self._counted, at), at


def _not_json(where: str, error: Exception) -> DataError:
    reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
    return DataError(where, f"expected JSON, found an error in it ({reason})")


def _not_utf8(where: str) -> DataError:
    return DataError(where, "expected UTF-8 text, found other bytes")
