"""A bar for whoever waits longer than two seconds."""

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds before anything is shown."""


class Waiting:
    """A bar on stderr while the block takes more than two seconds; nothing where stderr is no terminal.

    Args:
        what: the work, in a word or two.
        total: how much there is to do; ``None`` where nobody knows.
        bytes: count bytes, not pieces.
    """

    def __init__(self, what: str, total: int | None, *, bytes: bool = False, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        count = DownloadColumn() if bytes else MofNCompleteColumn()
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), count, TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, by: int = 1) -> None:
        """So much more is done."""
        self._bar.advance(self._task, by)
        if not self._bar.live.is_started and time.monotonic() - self._began > PATIENCE:
            self._bar.start()


def waited_for(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The items as they come, with a bar for those who wait."""
    with Waiting(what, total) as waiting:
        for item in items:
            yield item
            waiting.advance()
