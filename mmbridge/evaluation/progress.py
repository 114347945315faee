"""A progress bar for whoever waits: shown on a terminal, and only once the work has taken two seconds."""

import time
from types import TracebackType

from rich import progress as rich_progress
from rich.console import Console

PATIENCE = 2.0
"""Seconds before the bar appears."""


class Progress:
    """Counts up to ``total`` under a label, on standard error, and leaves nothing behind."""

    def __init__(self, label: str, total: int, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(label, total=total)
        self._begun = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, count: int) -> None:
        """Says that ``count`` more are done."""
        self._bar.advance(self._task, count)
        if not self._bar.live.is_started and time.monotonic() - self._begun > PATIENCE:
            self._bar.start()
