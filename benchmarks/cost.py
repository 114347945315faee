"""What work costs a process of its own: seconds of CPU time, and memory at its peak. Reads Linux's ``/proc``."""

import multiprocessing
import os
import time
import tracemalloc
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
Figures = Mapping[str, float]


def cost(work: Callable[[], T]) -> tuple[T, float, int]:
    """What ``work`` returns, its seconds, and the bytes by which memory grew until its peak."""
    with suppress(PermissionError):  # else the peak since the process began, which imports have long passed
        Path("/proc/self/clear_refs").write_text("5")
    before, began = _memory("VmRSS"), time.process_time()
    made = work()
    return made, time.process_time() - began, max(0, _memory("VmHWM") - before)


def allocated(work: Callable[[], object]) -> int:
    """Bytes that Python and NumPy held at their most while working: exact, where ``cost`` sees only whole pages."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def open_files() -> int:
    """How many this process has."""
    return len(os.listdir("/proc/self/fd"))


def median(repeats: int, task: Callable[..., Figures], *arguments: Any) -> dict[str, float]:
    """Of each figure that a task returns, over so many runs, each in a new process, forked from this one."""
    found = [_alone(task, *arguments) for _ in range(repeats)]
    return {key: float(np.median([each[key] for each in found])) for key in found[0]}


def _alone(task: Callable[..., Figures], *arguments: Any) -> Figures:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        return pool.submit(task, *arguments).result()


def _memory(name: str) -> int:
    """``VmRSS``, the bytes of memory in use, or ``VmHWM``, the most that were."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kibibytes = next(line for line in lines if line.startswith(f"{name}:")).split()[1]
    return 1024 * int(kibibytes)
