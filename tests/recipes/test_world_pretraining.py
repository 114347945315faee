"""Pretraining in several processes."""

from pathlib import Path

import torch
from torch import distributed as dist
from torch import multiprocessing, nn

from mmbridge.recipes.world_pretraining import average_gradients

RANKS = 2


def _step(rank: int, folder: str) -> None:
    """One rank's part of a batch; what it has for a gradient afterwards is left in the folder."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    model, rows = _model(), _rows().chunk(RANKS)[rank]
    model(rows).square().mean().backward()
    average_gradients(model.parameters())
    (Path(folder) / f"{rank}.txt").write_text(repr(_gradients(model)))
    dist.destroy_process_group()


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()


def _rows() -> torch.Tensor:
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _gradients(model: nn.Module) -> list[float]:
    return [float(value) for p in model.parameters() if p.grad is not None for value in p.grad.flatten()]


def test_two_processes_have_the_gradient_of_the_joined_batch(tmp_path: Path) -> None:
    multiprocessing.spawn(_step, (str(tmp_path),), nprocs=RANKS)  # type: ignore[attr-defined,no-untyped-call]
    whole = _model()
    whole(_rows()).square().mean().backward()
    for rank in range(RANKS):
        found = torch.tensor([float(each) for each in (tmp_path / f"{rank}.txt").read_text()[1:-1].split(",")])
        torch.testing.assert_close(found, torch.tensor(_gradients(whole)))
