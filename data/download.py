"""Shards on a web server: downloaded once, whole or not at all, and read from where they are kept.

Only http and https are spoken, redirects included: no other scheme that Python or webdataset knows (``file:``,
``ftp:``, ``data:``, ``pipe:``, which runs a command) can be reached from here.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from filelock import FileLock, Timeout

from mmbridge.cache import cache_folder
from mmbridge.data.progress import Waiting
from mmbridge.errors import DataError

SCHEMES = ("http", "https")
LARGEST = 64 * 2**30
"""Bytes of a shard that are downloaded at most."""
PAUSES = (1.0, 3.0, 9.0)
"""Seconds to wait before each new attempt."""
_TIMEOUT = 60.0
_PIECE = 2**20
_LOOK = 1.0
"""Seconds after which whoever waits for another process is shown that."""
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that may be others the next time."""


def fetched(urls: Sequence[str], largest: int = LARGEST) -> list[Path]:
    """The shards of these URLs as local files, in order.

    They are kept in ``mmbridge/shards`` under ``XDG_CACHE_HOME`` (``~/.cache``); one that is there is not asked for
    again. Of processes that want the same shard at the same time one downloads it and the others wait for it.

    Args:
        urls: http or https, of ``.tar`` files.
        largest: bytes of one shard that are not exceeded.

    Raises:
        DataError: with the URL: another scheme, not a ``.tar``, a server that refuses or is not there, a body that is
            not as long as announced or too long, a folder that cannot be written.
    """
    kept = cache_folder() / "shards"
    paths = [_place(url, kept) for url in urls]
    for url, path in zip(urls, paths, strict=True):
        if not path.exists():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with _alone(path):
                    if not path.exists():
                        _download(url, path, largest)
            except OSError as error:
                raise DataError(path.parent, f"cannot be written ({error.strerror or error})") from None
    return paths


def _place(url: str, folder: Path) -> Path:
    """Where a URL's shard is kept: under its own name, in a folder of the URL's own."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise DataError(url, f"expected a URL, found a fault in it ({error})") from None
    if parts.scheme not in SCHEMES or not parts.hostname:
        found = parts.scheme if parts.scheme not in SCHEMES else "no host"
        raise DataError(url, f"expected http or https and a host, found {found}", "download the data first")
    name = PurePosixPath(unquote(parts.path)).name
    if not name.endswith(".tar"):
        raise DataError(url, f"expected the URL of a .tar shard, found {name or 'no file'}", "download other formats")
    return folder / sha256(url.encode()).hexdigest()[:16] / name.replace(os.sep, "_").replace("\0", "_")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Waits until no other process is downloading this file; what one that was killed left of it is removed.

    The system lets go of a process's lock when it ends, however it ends.
    """
    lock = FileLock(f"{path}.lock")
    with Waiting(f"waiting for another process to download {path.name}", None) as waiting:
        while not lock.is_locked:
            with suppress(Timeout):
                lock.acquire(timeout=_LOOK)
            waiting.advance(0)
    try:
        for left in path.parent.glob("*.part"):
            left.unlink()
        yield
    finally:
        with suppress(OSError):  # some systems do not remove what is open
            os.unlink(lock.lock_file)
        lock.release()


def _download(url: str, path: Path, largest: int) -> None:
    for pause in (*PAUSES, None):
        try:
            _attempt(url, path, largest)
        except _PassingError as error:
            if pause is None:
                raise DataError(url, f"cannot be downloaded: {error}", "check the address and the network") from None
            time.sleep(pause)
        else:
            return


class _PassingError(Exception):
    """What may go well when it is tried again."""


def _attempt(url: str, path: Path, largest: int) -> None:
    descriptor, part = tempfile.mkstemp(prefix=path.name, suffix=".part", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            _receive(url, file, largest)
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _receive(url: str, file: IO[bytes], largest: int) -> None:
    """Writes a URL's body, all of it, into a file."""
    try:
        response: HTTPResponse = _opener().open(Request(url, headers={"User-Agent": "mmbridge"}), timeout=_TIMEOUT)
    except HTTPError as error:
        problem = f"{error.code} {error.reason}"
        if error.code in PASSING:
            raise _PassingError(problem) from None
        raise DataError(url, f"cannot be downloaded: {problem}") from None
    except (InvalidURL, ValueError) as error:
        raise DataError(url, f"expected a URL, found a fault in it ({error})") from None
    except (OSError, HTTPException) as error:  # URLError, and what a connection that breaks raises, are OSErrors
        raise _PassingError(getattr(error, "reason", error)) from None
    with response, Waiting(f"downloading {Path(urlsplit(url).path).name}", response.length, bytes=True) as waiting:
        expected, found = response.length, 0
        while found <= largest and (expected or 0) <= largest:
            try:
                piece = response.read(_PIECE)
            except (OSError, HTTPException) as error:
                raise _PassingError(error) from None
            if not piece:
                break
            file.write(piece)
            found += len(piece)
            waiting.advance(len(piece))
        else:
            raise DataError(url, f"expected a shard of at most {largest:,} bytes, found {max(found, expected or 0):,}")
    if expected is not None and found != expected:
        raise _PassingError(f"expected {expected:,} bytes, found {found:,}")


class _Redirects(HTTPRedirectHandler):
    """Follows only to where a user could have sent us; by itself urllib follows to ftp as well."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        if urlsplit(newurl).scheme not in SCHEMES:
            raise DataError(req.full_url, f"expected redirects to http or https, found one to {newurl[:80]!r}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> OpenerDirector:
    """One that knows http and https, and none of the other schemes of ``urllib.request.build_opener``."""
    opener = OpenerDirector()
    handlers = (ProxyHandler, HTTPHandler, HTTPSHandler, HTTPDefaultErrorHandler, _Redirects, HTTPErrorProcessor)
    for handler in handlers:
        opener.add_handler(handler())
    return opener
