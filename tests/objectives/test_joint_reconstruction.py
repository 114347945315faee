"""An X-Former's stage in two processes, against one process that has all samples."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from mmbridge.encoders.masked import Masking
from mmbridge.objectives import itm
from mmbridge.ranks import ALONE, together
from tests import processes
from tests.objectives.test_joint_pairs import nearest
from tests.objectives.test_pairs import THREE
from tests.objectives.test_reconstruction import recipe
from tests.test_ranks import SHARDED, curve, same, talk

KINDS = {"reconstruction": ("reconstruction",), "all": (*THREE, "reconstruction", "next_token")}
ENGINES = {"reconstruction": ("torch",), "all": ("torch", *SHARDED)}
"""DeepSpeed decays what has no gradient as well, which is much where one objective trains alone."""


def evenly(views: int, patches: int, visible: int, device: torch.device) -> Masking:
    """In place of a draw, which would not be the same in two processes."""
    return Masking((torch.arange(patches, device=device) * 5 % patches).expand(views, -1), visible)


def stage(folder: Path, kinds: tuple[str, ...], batch: int, mixed: bool) -> Any:
    """Steps of 8 samples in one batch; of a mixed one a process may have no image."""
    images = {"kind": "files", "path": "DATA", "task": "caption"}
    text = {"kind": "files", "path": str(folder / "talk.jsonl"), "task": "messages", "weight": 2.0}
    return recipe(
        folder,
        kinds,
        data={"mix": [images, text] if mixed else [images]},
        optim={"lr": 1e-2, "weight_decay": 0.1, "clip": 0.5},
        steps=4,
        batch=batch,
    )


def both(folder: str) -> dict[str, Any]:
    found = dict[str, Any]()
    with together() as ranks, patch.object(itm, "drawn", nearest), patch.object(Masking, "drawn", evenly):
        for name, kinds in KINDS.items():
            for mixed in (False, True):
                given = stage(Path(folder), kinds, 4, mixed)
                found |= {f"{engine} {name} {mixed}": curve(given, engine, ranks) for engine in ENGINES[name]}
    return found


@pytest.fixture(scope="module")
def parts(parts: Path) -> Path:
    talk(parts)
    recipe(parts)
    return parts


@pytest.fixture(scope="module")
def two(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return processes.together(both, str(parts), folder=tmp_path_factory.mktemp("two"))


@pytest.mark.slow
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_two_processes_take_the_steps_of_one(name: str, mixed: bool, parts: Path, two: dict[str, Any]) -> None:
    with patch.object(itm, "drawn", nearest), patch.object(Masking, "drawn", evenly):
        expected = curve(stage(parts, KINDS[name], 8, mixed), "torch", ALONE)
    assert not any("encoders." in each for each in expected["changed"])
    for engine in ENGINES[name]:
        same(two[f"{engine} {name} {mixed}"], expected)
