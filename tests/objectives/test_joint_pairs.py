"""Contrast, matching and assignment over the pairs of two processes, against one process that has all of them."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from mmbridge.joint import joint
from mmbridge.objectives import itm
from mmbridge.ranks import ALONE, Ranks, together
from tests import processes
from tests.objectives.test_pairs import QFORMER
from tests.test_ranks import ENGINES, SHARDED, curve, same, talk
from tests.tiny_bridge import tiny_recipe, tiny_stage

KINDS = {
    "itc": ["itc"],
    "itm": ["itm"],
    "assignment": ["assignment"],
    "all": ["itc", "itm", "itg", "assignment", "next_token"],
}
SMOOTH = ["itc", "itg", "next_token"]
"""Those of which a rounding changes no more than the digits behind it: which negative is the nearest it can change."""
ALL = (*ENGINES, *SHARDED)


def nearest(near: Tensor, matching: Tensor) -> Tensor:
    """In place of a draw, which would not be the same in two processes."""
    return near.masked_fill(matching, -torch.inf).argmax(dim=1)


def recipe(folder: Path, kinds: list[str], precision: str, batch: int, mixed: bool) -> Any:
    """Steps of 8 samples in one batch; of a mixed one a process may have no image."""
    images = {"kind": "files", "path": "DATA", "task": "caption"}
    text = {"kind": "files", "path": str(folder / "talk.jsonl"), "task": "messages", "weight": 2.0}
    stage = tiny_stage(
        objectives=[{"kind": kind} for kind in kinds],
        data={"mix": [images, text] if mixed else [images]},
        optim={"lr": 1e-3 if precision == "bfloat16" else 1e-2, "weight_decay": 0.1, "clip": 0.5},
        precision=precision,
        steps=4,
        batch=batch,
    )
    connector = {"encoders": ["image"], "resampler": QFORMER, "projector": {"kind": "linear"}}
    return tiny_recipe(folder, stage, connectors={"image": connector})


def both(folder: str) -> dict[str, Any]:
    parts, found = Path(folder), dict[str, Any]()
    with together() as ranks, patch.object(itm, "drawn", nearest):
        for name, kinds in KINDS.items():
            for mixed in (False, True):
                given = recipe(parts, kinds, "float32", 4, mixed)
                engines = ALL if name == "all" else ("torch",)
                found |= {f"{engine} {name} {mixed}": curve(given, engine, ranks) for engine in engines}
        given = recipe(parts, SMOOTH, "bfloat16", 4, False)
        found |= {f"{engine} bfloat16": curve(given, engine, ranks) for engine in ENGINES}
        found["joint"] = rows(ranks)
    return found


def rows(ranks: Ranks) -> dict[str, Any]:
    """Of a process with as many rows as its rank + 1, which weighs all rows by its own numbers."""
    own = (torch.arange(ranks.rank + 1.0)[:, None] + 10 * ranks.rank).expand(-1, 2).clone().requires_grad_()
    whole = joint(own, ranks)
    torch.autograd.backward((whole * torch.tensor([[1.0], [2.0], [3.0]]) * (ranks.rank + 1)).sum())
    assert own.grad is not None
    return {"rows": whole.tolist(), "gradients": [each.tolist() for each in ranks.rows(own.grad)]}


@pytest.fixture(scope="module")
def parts(parts: Path) -> Path:
    talk(parts)
    return parts


@pytest.fixture(scope="module")
def two(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return processes.together(both, str(parts), folder=tmp_path_factory.mktemp("two"))


@pytest.mark.slow
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_two_processes_take_the_steps_of_one(name: str, mixed: bool, parts: Path, two: dict[str, Any]) -> None:
    with patch.object(itm, "drawn", nearest):
        expected = curve(recipe(parts, KINDS[name], "float32", 8, mixed), "torch", ALONE)
    for engine in ALL if name == "all" else ("torch",):
        same(two[f"{engine} {name} {mixed}"], expected)


@pytest.mark.slow
def test_in_bfloat16(parts: Path, two: dict[str, Any]) -> None:
    expected = curve(recipe(parts, SMOOTH, "bfloat16", 8, mixed=False), "torch", ALONE)
    for engine in ENGINES:
        found = two[f"{engine} bfloat16"]
        assert found["losses"] == pytest.approx(expected["losses"], rel=2e-2)
        assert found["weights"] == found["whole"]
        assert {*expected["changed"]} <= {*found["changed"]}  # DeepSpeed decays what has no gradient as well


@pytest.mark.slow
def test_gradients_go_back_to_the_rows_of_every_process(two: dict[str, Any]) -> None:
    """One process weighs rows by 1, 2, 3 and the other by 2, 4, 6."""
    assert two["joint"]["rows"] == [[0, 0], [10, 10], [11, 11]]
    assert two["joint"]["gradients"] == [[[3, 3]], [[6, 6], [9, 9]]]
