"""Functions run in several processes that train together, as a launcher would start them."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing

Task = Callable[..., Any]
"""Called in each process with the arguments given; what it returns in the main one is JSON."""


def together(task: Task, *arguments: Any, folder: Path, count: int = 2) -> Any:
    """Runs a task in ``count`` new processes; returns what the main one's returned."""
    folder.mkdir(parents=True, exist_ok=True)
    spawned: Any = multiprocessing
    spawned.spawn(_launched, (count, free_port(), task, arguments, str(folder / "result.json")), nprocs=count)
    return json.loads((folder / "result.json").read_text())


def _launched(rank: int, count: int, port: int, task: Task, arguments: tuple[Any, ...], result: str) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in names.items()}
    torch.set_num_threads(1)
    found = task(*arguments)
    if rank == 0:
        Path(result).write_text(json.dumps(found))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
