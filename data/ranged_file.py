"""Files of which only parts are read, where they are: on disk, on a web server, on the Hugging Face Hub.

fsspec speaks to each of them; nothing is written to disk. A file is opened for one reading and closed again, so that no
two processes share a connection or a place in it.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from io import SEEK_SET, RawIOBase
from typing import IO, Any, Literal, TypeVar, cast

import fsspec

from mmbridge.data import download
from mmbridge.errors import DataError, SourceError

T = TypeVar("T")
Protocol = Literal["file", "http", "hf"]

_VERSIONS: dict[Protocol, tuple[str, ...]] = {"file": ("mtime",), "http": ("ETag", "Last-Modified"), "hf": ("blob_id",)}
"""What fsspec tells of a file that changes when the file does; the first that is there counts."""
_SILENCE = 60.0
"""Seconds without a byte after which a web server is given up."""


@dataclass(frozen=True, slots=True)
class RangedFile:
    """A file as it was found.

    ``name`` is what errors call it, ``path`` what fsspec does; on the Hub it names a commit. ``size`` is in bytes;
    ``version`` is its time of change, ETag or hash, empty where a server says nothing of the kind.
    """

    name: str
    protocol: Protocol
    path: str
    size: int
    version: str

    def read(self, take: Callable[[IO[bytes]], T]) -> T:
        """What ``take`` makes of the file, of which it may read any parts in any order.

        Raises:
            SourceError: it cannot be reached any more, its server does not give parts, or it is not what was found.
                Whatever else ``take`` raises is let through.
        """
        try:
            with _Ranges(self, tried(self.name, self.protocol, self._opened)) as ranges:
                taken = take(cast(IO[bytes], ranges))
        except SourceError:
            raise
        except Exception:
            self._see_that_it_is_the_same()
            raise
        self._see_that_it_is_the_same()
        return taken

    def _opened(self) -> Any:
        return file_system(self.protocol).open(self.path, "rb", cache_type="none", size=self.size)

    def _see_that_it_is_the_same(self) -> None:
        if self.protocol == "hf":
            return  # a commit does not change
        now = ranged_file(self.name, self.protocol, self.path)
        if (now.size, now.version) != (self.size, self.version):
            raise SourceError(self.name, "expected the file that was opened, found that it has changed", "start again")


def ranged_file(name: str, protocol: Protocol, path: str, told: Mapping[str, Any] | None = None, /) -> RangedFile:
    """The file of a path, looked up unless fsspec has ``told`` of it.

    Raises:
        SourceError: there is none, it cannot be reached, or its server says no size or gives no parts.
    """
    if told is None:
        told = tried(name, protocol, lambda: file_system(protocol).info(path))
    if told.get("size") is None or told.get("partial") is False or told["type"] != "file":
        raise _whole_only(name)
    version = next((str(told[key]) for key in _VERSIONS[protocol] if key in told), "")
    return RangedFile(name, protocol, path, int(told["size"]), version)


def file_system(protocol: Protocol) -> Any:
    """fsspec's; in each process its own.

    Raises:
        DataError: a package that it needs is missing.
    """
    options: dict[str, Any] = {}
    if protocol == "http":
        try:
            from aiohttp import ClientTimeout
        except ModuleNotFoundError:
            problem = "expected the package aiohttp, which reads parts of files on web servers, found none"
            raise DataError("http", problem, "pip install 'mmbridge[hf]'") from None
        limits = ClientTimeout(total=None, sock_connect=_SILENCE, sock_read=_SILENCE)
        options["client_kwargs"] = {"timeout": limits, "trust_env": True, "headers": {"User-Agent": "mmbridge"}}
    return fsspec.filesystem(protocol, **options)


def tried(name: str, protocol: Protocol, ask: Callable[[], T]) -> T:
    """What comes of asking; asked again, after a pause, when what went wrong with a server may pass.

    Raises:
        SourceError: in one line, what went wrong.
    """
    for pause in (*download.PAUSES, None):
        try:
            return ask()
        except DataError:
            raise
        except Exception as error:  # each library has its own
            cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
            if pause is None or not _may_pass(cause, protocol):
                fix = "check the address and the network" if protocol != "file" else ""
                raise SourceError(name, f"cannot be read: {_reason(cause)}", fix) from None
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


class _Ranges(RawIOBase):
    """A file for reading, each piece of which is asked for by itself, when it is read."""

    def __init__(self, of: RangedFile, file: Any) -> None:
        self._of, self._file = of, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = SEEK_SET, /) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def read(self, size: int = -1, /) -> bytes:
        data: bytes = tried(self._of.name, self._of.protocol, lambda: self._piece(size))
        return data

    def _piece(self, size: int) -> bytes:
        try:
            data: bytes = self._file.read(size)
        except ValueError:  # what fsspec says when it gets a whole file for a part
            raise _whole_only(self._of.name) from None
        if len(data) > size >= 0:
            raise _whole_only(self._of.name)
        return data

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _whole_only(name: str) -> SourceError:
    problem = "expected a server that gives parts of a file and says its size, found one that does not"
    return SourceError(name, problem, "download the data first")


def _status(error: BaseException) -> int | None:
    """The status a web server has answered with, as aiohttp or the Hub's client tells it."""
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _may_pass(error: BaseException, protocol: Protocol) -> bool:
    status = _status(error)
    if status is not None:
        return status in download.PASSING
    return protocol != "file" and not isinstance(error, (FileNotFoundError, ValueError, ImportError))


def _reason(error: BaseException) -> str:
    status = _status(error)
    if status is not None and status in {each.value for each in HTTPStatus}:
        return f"{status} {HTTPStatus(status).phrase}"
    if isinstance(error, FileNotFoundError):
        return "found no such file"
    return " ".join(str(error).split())[:200] or type(error).__name__
