"""Costs of a training step against its size: each function runs in processes of its own, for ``growth.py``."""

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from cost import cost
from random_llava import Shape, write
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from training_step import SETTINGS, ours

from mmbridge.ranks import ALONE, Ranks, together


def step(shape: Shape) -> dict[str, float]:
    """One thread's step of the connector, forward and backward, in one process."""
    with TemporaryDirectory() as folder:
        return _stepped(shape, write(shape, Path(folder)), ALONE)


def step_in(processes: int, shape: Shape) -> dict[str, float]:
    """The same batch in several processes of a thread each, which add their gradients up; of the slowest."""
    config = LaunchConfig(
        1, 1, processes, run_id="growth", rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork"
    )
    with TemporaryDirectory() as folder:
        found = elastic_launch(config, _launched)(shape, write(shape, Path(folder))).values()
    return {name: max(each[name] for each in found) for name in next(iter(found))}


def _launched(shape: Shape, folder: Path) -> dict[str, float]:
    with together() as ranks:
        return _stepped(replace(shape, samples=shape.samples // ranks.count), folder, ranks)


def _stepped(shape: Shape, folder: Path, ranks: Ranks) -> dict[str, float]:
    torch.set_num_threads(1)
    setting = replace(SETTINGS["live"], micro=shape.samples)
    bridge, _, step = ours(folder, shape, setting.texts(shape), setting)
    trained = list(bridge.connectors.parameters())

    def whole() -> None:
        step()
        ranks.sum_(each.grad for each in trained if each.grad is not None)

    _, _, memory = cost(whole)
    began = time.perf_counter()
    _, seconds, _ = cost(whole)
    return {"step, s": seconds, "step, bytes": memory, "wall seconds": time.perf_counter() - began}
