"""Transport between the tokens and words of two processes, against one process that has all of them."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from torch import Tensor

from mmbridge.objectives import token_transport
from mmbridge.ranks import ALONE, together
from tests import processes
from tests.test_ranks import curve, same, talk
from tests.tiny_bridge import tiny_recipe, tiny_stage

KINDS: dict[str, dict[str, Any]] = {
    "carried": {"kind": "token_transport", "plan": {"kind": "sinkhorn", "epsilon": 0.1, "iterations": 20}},
    "contrast": {"kind": "token_transport", "contrast": True},
    "gap": {"kind": "divergence", "epsilon": 0.2, "tolerance": 1e-5},
    "pairs": {"kind": "divergence", "of": "pair", "epsilon": 0.2, "tolerance": 1e-5},
    "words": {"kind": "assignment", "marginal": "uniform"},
}
ENGINES = ("torch", "zero-3 of all")


def farthest(_: Tensor, matching: Tensor) -> Tensor:
    """In place of a draw, which would not be the same in two processes: the last text that is about another medium."""
    count = matching.shape[1]
    return count - 1 - (~matching).flip(1).float().argmax(dim=1)


def recipe(folder: Path, kind: str, precision: str, batch: int, mixed: bool) -> Any:
    """Steps of 8 samples in one batch; of a mixed one a process may have no image."""
    images = {"kind": "files", "path": "DATA", "task": "caption"}
    text = {"kind": "files", "path": str(folder / "talk.jsonl"), "task": "messages", "weight": 2.0}
    stage = tiny_stage(
        objectives=[KINDS[kind]],
        data={"mix": [images, text] if mixed else [images]},
        optim={"lr": 1e-3, "weight_decay": 0.1, "clip": 0.5},
        precision=precision,
        steps=4,
        batch=batch,
    )
    return tiny_recipe(folder, stage)


def both(folder: str) -> dict[str, Any]:
    parts, found = Path(folder), dict[str, Any]()
    with together() as ranks, patch.object(token_transport, "drawn", farthest):
        for kind in KINDS:
            for mixed in (False, True):
                for engine in ENGINES if mixed else ENGINES[:1]:
                    given = recipe(parts, kind, "float32", 4, mixed)
                    found[f"{engine} {kind} {mixed}"] = curve(given, engine, ranks)
            found[f"{kind} bfloat16"] = curve(recipe(parts, kind, "bfloat16", 4, mixed=True), "torch", ranks)
    return found


@pytest.fixture(scope="module")
def parts(parts: Path) -> Path:
    talk(parts)
    return parts


@pytest.fixture(scope="module")
def two(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return processes.together(both, str(parts), folder=tmp_path_factory.mktemp("two"))


@pytest.mark.slow
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_take_the_steps_of_one(kind: str, mixed: bool, parts: Path, two: dict[str, Any]) -> None:
    """Plain torch, and ZeRO-3 with the LLM's embeddings in parts."""
    with patch.object(token_transport, "drawn", farthest):
        expected = curve(recipe(parts, kind, "float32", 8, mixed), "torch", ALONE)
    for engine in ENGINES if mixed else ENGINES[:1]:
        same(two[f"{engine} {kind} {mixed}"], expected, 1e-5 if kind in ("carried", "contrast") else 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_in_bfloat16(kind: str, parts: Path, two: dict[str, Any]) -> None:
    with patch.object(token_transport, "drawn", farthest):
        expected = curve(recipe(parts, kind, "bfloat16", 8, mixed=True), "torch", ALONE)
    assert two[f"{kind} bfloat16"]["losses"] == pytest.approx(expected["losses"], rel=2e-2, abs=2e-3)
