"""Worker processes: signals are their parent's, and they do not outlive it."""

import os
import signal
import subprocess
import sys

import pytest
from torch.utils.data import Dataset

from mmbridge.data.workers import read_ahead


class Pids(Dataset[int]):
    """Which process each item was made by."""

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> int:
        return os.getpid()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_meant_for_the_parent_does_not_end_a_worker(number: int) -> None:
    found: list[int] = []
    for pid in read_ahead(Pids(), 1, batch_size=None):
        if not found:
            os.kill(pid, number)
        found.append(pid)
    assert len(found) == 100
    assert set(found) != {os.getpid()}


@pytest.mark.parametrize("end", ["", "raise RuntimeError"])
def test_a_process_with_a_loader_at_work_comes_to_its_end(end: str) -> None:
    code = (
        "from tests.data.test_workers import Pids\n"
        "from mmbridge.data.workers import read_ahead\n"
        "held = iter(read_ahead(Pids(), 2, batch_size=None))\n"
        "print(next(held), flush=True)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code + end], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == bool(end)
    with pytest.raises(ProcessLookupError):
        os.kill(int(ended.stdout), 0)
