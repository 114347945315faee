"""When a stage in work is kept, what of it, and how it is found again.

The state is all that the coming steps depend on: what trains, the optimiser, the schedule, torch's random state, where
the data stand, the best validation so far, and the totals of the log. So a resumed stage takes the same steps, to the
bit, as one that was never stopped.
"""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import torch

from mmbridge.checkpoint import DamagedError, State, read, steps, write
from mmbridge.errors import UserError
from mmbridge.interruption import Interruption
from mmbridge.stage import CheckpointConfig


class Kept(Protocol):
    """A part of a stage that has state of its own."""

    def state(self) -> State:
        """A copy that later steps do not change."""
        ...

    def load_state(self, state: State) -> None: ...


class RandomState:
    """torch's generators: the CPU's and those of all CUDA devices."""

    def state(self) -> State:
        tensors = {"cpu": torch.get_rng_state()}
        tensors |= {f"cuda.{index}": each for index, each in enumerate(torch.cuda.get_rng_state_all())}
        return State(tensors, {})

    def load_state(self, state: State) -> None:
        torch.set_rng_state(state.tensors["cpu"])
        for index in range(torch.cuda.device_count()):
            if f"cuda.{index}" in state.tensors:
                torch.cuda.set_rng_state(state.tensors[f"cuda.{index}"], index)


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint of ``step`` steps."""

    step: int
    state: State


def newest(folder: Path) -> tuple[Found | None, list[str]]:
    """The newest whole checkpoint, and a line for each damaged one that had to be passed over."""
    passed = list[str]()
    for step in steps(folder):
        try:
            return Found(step, read(folder, step)), passed
        except DamagedError as error:
            passed.append(str(error))
    return None, passed


class Checkpoints:
    """Keeps a stage every so many steps, and before an interruption ends it.

    Files are written in the background; whoever waits for a second checkpoint or for the end waits for the first.

    ``first`` is how many steps have been taken before.

    Args:
        folder: where they are.
        config: how often, and how many.
        parts: what has state, by the name it is kept under.
        found: the checkpoint to go on from; every part is put where it has it.
    """

    def __init__(self, folder: Path, config: CheckpointConfig, parts: Mapping[str, Kept], found: Found | None) -> None:
        self._folder, self._config = folder, config
        self._parts: dict[str, Kept] = {"random": RandomState(), **parts}
        self._interruption = Interruption()
        self._writer = ThreadPoolExecutor(1)
        self._pending: tuple[int, Future[None]] | None = None
        self.first = found.step if found else 0
        if found:
            for name, part in self._parts.items():
                part.load_state(_of(found.state, name))

    def __call__(self, step: int) -> None:
        """Once after every step.

        Raises:
            KeyboardInterrupt: one of the signals has come since the last step; the stage is kept.
            UserError: the checkpoint before this one could not be written.
        """
        asked = self._interruption.asked
        if asked or (self._config.every is not None and step % self._config.every == 0):
            self._keep(step)
        if asked:
            self._wait()
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        self._interruption.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interruption.__exit__(kind, error, trace)
        self._writer.shutdown()
        if error is None:
            self._wait()

    def _keep(self, step: int) -> None:
        self._wait()
        state = _joined({name: part.state() for name, part in self._parts.items()})
        self._pending = step, self._writer.submit(write, self._folder, step, state, self._config.keep)

    def _wait(self) -> None:
        """Until what is being written is on the disk."""
        if self._pending is None:
            return
        (step, written), self._pending = self._pending, None
        try:
            written.result()
        except OSError as error:
            left = steps(self._folder)
            problem = f"the checkpoint of step {step} cannot be written ({error.strerror or error})"
            fix = f"make room; --resume goes on from step {left[0]}" if left else "make room, then --resume"
            raise UserError(self._folder, problem, fix) from error


def _joined(states: dict[str, State]) -> State:
    tensors = {f"{part}/{name}": each for part, state in states.items() for name, each in state.tensors.items()}
    return State(tensors, {part: state.values for part, state in states.items()})


def _of(whole: State, part: str) -> State:
    start = f"{part}/"
    tensors = {name.removeprefix(start): each for name, each in whole.tensors.items() if name.startswith(start)}
    return State(tensors, whole.values[part])
