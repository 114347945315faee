"""The processes that train together: one, or those that torchrun or the deepspeed launcher started.

What they decide together (how many terms a step has, whether it is taken, whether to stop) they agree upon in main
memory, over gloo, so that no accelerator is waited for. Nothing is pickled on the way.
"""

import atexit
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from mmbridge.errors import MMBridgeError, UserError


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among the others: ``rank`` of ``count``, and ``local`` among those of its machine.

    Every method but ``main`` is called by all of them, or waits for those that do not come.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def main(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Each number summed over the processes."""
        if self.count == 1:
            return list(numbers)
        sums = torch.tensor(list(numbers), dtype=torch.float64)
        dist.all_reduce(sums)
        return [float(each) for each in sums]

    def any(self, here: bool) -> bool:
        """Whether it is so in any process."""
        return self.total([float(here)])[0] > 0

    def from_main(self, number: int) -> int:
        """The main process's number, in all."""
        return int(self.total([number if self.main else 0])[0])

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Each process's tensor, by rank; all are of one shape, and in main memory."""
        if self.count == 1:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.count)]
        dist.all_gather(found, tensor)
        return found

    def rows(self, tensor: Tensor) -> list[Tensor]:
        """Each process's tensor (N, …), by rank; they differ in N alone, and are in main memory."""
        lengths = [int(each) for each in self.gather(torch.tensor(len(tensor)))]
        padded = tensor.new_zeros(max(lengths), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        return [each[:length] for each, length in zip(self.gather(padded), lengths, strict=True)]

    def texts(self, text: str) -> list[str]:
        """Each process's text, by rank."""
        data = torch.from_numpy(np.frombuffer(text.encode(), np.uint8).copy())
        return [each.numpy().tobytes().decode() for each in self.rows(data)]

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Puts the sum over the processes in place of each tensor, on its own device."""
        if self.count > 1:
            for work in [dist.all_reduce(each, async_op=True) for each in tensors]:
                assert work is not None
                work.wait()

    def wait(self) -> None:
        """Until every process is here."""
        self.total([0])


ALONE = Ranks()
"""A run of one process."""


_LETTING_GO = 0.5
"""Seconds in which gloo's threads let go of the last tensors. They need the interpreter for it, and a process whose
interpreter is being taken down meanwhile ends with an abort, after all has gone well."""


@contextmanager
def together(alone: bool = False) -> Iterator[Ranks]:
    """The ranks that the launcher's environment tells of, with a process group that is closed on every way out.

    Within another, it is that one's. A group of one lives as long as its process: DeepSpeed remembers groups, and would
    use the closed one when the process trains again. Whoever does that in several processes goes through this once.

    Args:
        alone: a group is opened for a single process as well, for an engine that wants one.

    Raises:
        UserError: the environment is not what a launcher leaves.
        MMBridgeError: another process has gone.
    """
    ranks = _told()
    opened = not dist.is_initialized() and (ranks.count > 1 or alone)
    if opened:
        _open(ranks)
    try:
        yield ranks
        ranks.wait()
    except RuntimeError as error:
        if "gloo" not in str(error) and not isinstance(error, dist.DistError):
            raise
        problem = f"process {ranks.rank}: another process has gone ({_first_line(error)}); what it said tells why"
        raise MMBridgeError(problem) from error
    finally:
        if opened and ranks.count > 1:
            dist.destroy_process_group()
            time.sleep(_LETTING_GO)


def _open(ranks: Ranks) -> None:
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        if ranks.count == 1:
            os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed asks the environment
            store = dist.HashStore()  # type: ignore[attr-defined]
            dist.init_process_group(backend, store=store, rank=0, world_size=1)
            atexit.register(dist.destroy_process_group)
        else:
            dist.init_process_group(backend)
    except (ValueError, RuntimeError) as error:
        raise UserError("RANK, WORLD_SIZE, MASTER_ADDR", f"no group of processes ({_first_line(error)})") from error


def _told() -> Ranks:
    """What the environment says: the names that torchrun and the deepspeed launcher give things."""
    try:
        rank, count, local = (
            int(os.environ.get(*each)) for each in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
        )
    except ValueError as error:
        raise UserError("RANK, WORLD_SIZE, LOCAL_RANK", f"expected whole numbers, found {error}") from None
    if not 0 <= rank < count:
        raise UserError("RANK", f"expected 0 to {count - 1} for WORLD_SIZE {count}, found {rank}")
    return Ranks(rank, count, local)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
