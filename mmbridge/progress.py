"""What whoever waits for training sees: a bar on a terminal, plain lines elsewhere."""

import time
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from mmbridge.loop import Step
from mmbridge.peak import needed_mfu


class TrainingProgress:
    """Loss, rate, needed-MFU where it is known, and time left of a stage; all but the last are means since the last
    time they were shown.

    Args:
        stage: its name.
        steps: how many it has.
        every: steps from one plain line to the next; a terminal's bar moves at every step.
        first: how many had been taken when a stage is gone on with.
    """

    def __init__(self, stage: str, steps: int, every: int, console: Console, first: int = 0) -> None:
        self._stage, self._steps, self._every, self._console, self._first = stage, steps, every, console, first
        self._recent: list[Step] = []
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console,
        )
        self._task = self._bar.add_task(stage, total=steps, completed=first, figures="")

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def step(self, step: Step) -> None:
        """One more step is done."""
        self._recent.append(step)
        due = step.number % self._every == 0 or step.number in (self._first + 1, self._steps)
        if not due and not self._console.is_terminal:
            return
        figures = self._figures(step.number)
        if self._console.is_terminal:
            self._bar.update(self._task, completed=step.number, figures=figures)
        else:
            self._console.print(f"{self._stage}  step {step.number}/{self._steps}  {figures}", soft_wrap=True)
        if due:
            self._recent.clear()

    def say(self, text: str) -> None:
        """A line between the steps."""
        self._console.print(f"{self._stage}  {text}", soft_wrap=True, highlight=False)

    def _figures(self, number: int) -> str:
        loss = sum(step.loss for step in self._recent) / len(self._recent)
        rate = sum(step.samples for step in self._recent) / sum(step.seconds for step in self._recent)
        left = (time.monotonic() - self._began) / (number - self._first) * (self._steps - number)
        needed = sum(step.needed_flops for step in self._recent)
        mfu = needed_mfu(needed, *(step.peak_flops for step in self._recent))
        shown = "".join(f"  {each:.0%} needed-MFU" for each in mfu.values())
        return f"loss {loss:.4f}  {rate:.0f} samples/s{shown}  {timedelta(seconds=round(left))} left"
