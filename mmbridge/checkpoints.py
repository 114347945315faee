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
from mmbridge.ranks import ALONE, Ranks
from mmbridge.stage import CheckpointConfig


class Kept(Protocol):
    """A part of a stage that has state of its own."""

    def state(self) -> State:
        """A copy that later steps do not change."""
        ...

    def load_state(self, state: State) -> None: ...


class RandomState:
    """torch's generators in every process: the CPU's, and that of the accelerator in use.

    A process that was not there when the state was kept goes on with what its own seed gave it.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks

    def state(self) -> State:
        found = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            found["cuda"] = torch.cuda.get_rng_state()
        gathered = {kind: self._ranks.gather(each) for kind, each in found.items()}
        return State({f"{kind}.{rank}": each for kind, all_ in gathered.items() for rank, each in enumerate(all_)}, {})

    def load_state(self, state: State) -> None:
        rank, tensors = self._ranks.rank, state.tensors
        if f"cpu.{rank}" in tensors:
            torch.set_rng_state(tensors[f"cpu.{rank}"])
        if f"cuda.{rank}" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors[f"cuda.{rank}"])


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
        ranks: the processes that train together; the main one writes for all.
    """

    def __init__(
        self,
        folder: Path,
        config: CheckpointConfig,
        parts: Mapping[str, Kept],
        found: Found | None,
        ranks: Ranks = ALONE,
    ) -> None:
        self._folder, self._config, self._ranks = folder, config, ranks
        self._parts: dict[str, Kept] = {**parts, "random": RandomState(ranks)}  # last: putting the others may draw
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
            KeyboardInterrupt: one of the signals has come since the last step, in any process; the stage is kept.
            UserError: the checkpoint before this one could not be written.
        """
        asked = self._ranks.any(self._interruption.asked)
        if asked or (self._config.every is not None and step % self._config.every == 0):
            self._keep(step)
        if asked:
            self._wait()
            self._ranks.wait()
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
        if self._ranks.main:
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
