"""Queries that read instructions, trained in two processes, against one process that has all samples."""

from pathlib import Path
from typing import Any

import pytest

from mmbridge.ranks import ALONE, together
from tests import processes
from tests.objectives.test_pairs import QFORMER, TEXT
from tests.test_ranks import curve, same, talk
from tests.tiny_bridge import tiny_recipe, tiny_stage

ENGINES = ("torch", "zero-2", "zero-3 of all")


def recipe(folder: Path, batch: int) -> Any:
    """Steps of 8 samples: captions and questions about the same images, and text alone, so that a process may have no
    image to read an instruction beside."""
    images = [{"kind": "files", "path": "DATA", "task": task} for task in ("caption", "vqa")]
    text = {"kind": "files", "path": str(folder / "talk.jsonl"), "task": "messages", "weight": 2.0}
    stage = tiny_stage(
        data={"mix": [*images, text]},
        optim={"lr": 1e-2, "weight_decay": 0.1, "clip": 0.5},
        steps=4,
        batch=batch,
    )
    resampler = QFORMER | {"text": TEXT | {"shared": None, "instruction": True}}
    connector = {"encoders": ["image"], "resampler": resampler, "projector": {"kind": "linear"}}
    return tiny_recipe(folder, stage, connectors={"image": connector})


def both(folder: str) -> dict[str, Any]:
    with together() as ranks:
        return {engine: curve(recipe(Path(folder), 4), engine, ranks) for engine in ENGINES}


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(parts: Path, tmp_path: Path) -> None:
    tiny_recipe(parts)
    talk(parts)
    expected = curve(recipe(parts, 8), "torch", ALONE)
    for found in processes.together(both, str(parts), folder=tmp_path).values():
        same(found, expected)
