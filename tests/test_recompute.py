"""What blocks recompute: chosen from the memory there is, by formulas that are worked out again here."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from mmbridge import recompute as choosing
from mmbridge.batches import training_batches
from mmbridge.bridge import Bridge
from mmbridge.errors import RecipeError
from mmbridge.llm.recomputing import NOTHING, Recompute
from mmbridge.memory_floor import memory_floor
from mmbridge.recipe import Recipe
from mmbridge.recompute import fitting, kept, largest, recompute
from mmbridge.torch_engine import TorchEngine
from mmbridge.train import train
from mmbridge.trainable import unfreeze
from tests.test_train import curve, equal, lines, weights
from tests.tiny_bridge import tiny_recipe, tiny_stage


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (1000, NOTHING),
        (999, Recompute(selective=True)),
        (600, Recompute(selective=True)),
        (599, Recompute(3, selective=True)),  # 3·10 + 7·60 + 100 for the one that runs again
        (260, Recompute(9, selective=True)),
        (0, Recompute(9, selective=True)),
    ],
)
def test_the_least_that_fits(room: float, expected: Recompute) -> None:
    """Ten blocks that keep 100 each, 60 when selective and 10 as inputs."""
    assert fitting(room, 1000, 600, 100, 10) == expected


def test_the_first_number_of_blocks_that_fits() -> None:
    for room in range(250, 600, 7):
        found = fitting(room, 1000, 600, 100, 10)
        costs = [60 * (10 - whole) + 10 * whole + (100 if whole else 0) for whole in range(10)]
        assert found.blocks == next((whole for whole, cost in enumerate(costs) if cost <= room), 9)


def started(parts: Path, **changes: Any) -> tuple[TorchEngine, Recipe, Any]:
    recipe = tiny_recipe(parts, tiny_stage(**changes))
    bridge, stage = Bridge(recipe), recipe.stages[0]
    unfreeze(bridge, stage, "stages.align", parts=["connectors."])
    batches, _ = training_batches(bridge, stage, 0)
    return TorchEngine(bridge, stage, 3, "stages.align"), recipe, batches


def with_memory(free: int, engine: TorchEngine, recipe: Recipe, batches: Any, patch: pytest.MonkeyPatch) -> Recompute:
    patch.setattr(choosing, "free_memory", lambda device: free)
    return recompute(engine, recipe.stages[0], batches, "stages.align")


def test_memory_decides(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, recipe, batches = started(parts, batch=8)
    positions, supervised = largest(batches.drawn(256), batches.collate, recipe.stages[0], packed=True)
    floor = memory_floor(engine.bridge, positions, supervised)
    fixed = floor.logits + floor.trained
    everything = positions * kept(engine.bridge.llm, engine.precision())
    inputs = positions * 2 * 32 * 4
    assert floor.saved + inputs < everything
    free = [1 << 40, (everything + fixed + 9) / 0.9, (everything + fixed - 9) / 0.9, (floor.saved + fixed) / 0.9]
    found = [with_memory(int(each), engine, recipe, batches, monkeypatch) for each in free]
    assert found == [NOTHING, NOTHING, Recompute(selective=True), Recompute(1, selective=True)]


def test_the_largest_batch_is_one_of_the_longest_samples(parts: Path) -> None:
    """Measured by making it: sixteen pictures, every third with the longest caption."""
    engine, recipe, batches = started(parts, batch=4)
    bridge = engine.bridge
    found = {}
    samples = sorted(batches.drawn(256), key=batches.collate.positions, reverse=True)[:4]
    for packed in (True, False):
        found[packed] = largest(batches.drawn(256), batches.collate, recipe.stages[0], packed=packed)
    batch = bridge.collate()(samples)
    lengths = [batches.collate.positions(each) for each in samples]
    assert found[True] == (sum(lengths), sum(sum(prompt.supervised) for prompt in batch.prompts))
    assert found[False][0] == bridge.spliced(batch, "right").ids.numel()
    full = recipe.stages[0].model_copy(update={"budget": 100})
    assert largest(batches.drawn(256), batches.collate, full, packed=True)[0] == 100


def test_what_is_kept_is_measured(parts: Path) -> None:
    """Below the formula of what must be kept it cannot be; above it are norms and activations."""
    engine, _, _ = started(parts)
    floor = memory_floor(engine.bridge, 1, 0).saved
    assert floor < kept(engine.bridge.llm, engine.precision()) < choosing.PLENTY * floor


@pytest.mark.parametrize("asked", ["selective", 1])
def test_a_run_is_the_same_run(asked: Any, parts: Path, tmp_path: Path) -> None:
    """To the bit; what whole blocks execute twice is said."""
    train(tiny_recipe(parts, tiny_stage(recompute="none")), tmp_path / "none")
    train(tiny_recipe(parts, tiny_stage(recompute=asked)), tmp_path / "some")
    none, some = (tmp_path / name / "stages/align" for name in ("none", "some"))
    assert curve(some) == curve(none)
    assert equal(weights(some), weights(none))
    needed, executed = ([line[key] for line in lines(some)] for key in ("needed_flops", "executed_flops"))
    assert needed == [line["needed_flops"] for line in lines(none)]
    more = [again > once["executed_flops"] for again, once in zip(executed, lines(none), strict=True)]
    assert set(more) == {asked == 1}


def test_the_last_block_is_not_among_them(parts: Path) -> None:
    engine, recipe, batches = started(parts, recompute=2)
    with pytest.raises(
        RecipeError, match=r"^stages\.align\.recompute: expected at most the 1 blocks below the last, fo"
    ):
        recompute(engine, recipe.stages[0], batches, "stages.align")


def test_nothing_else_can_be_asked_for(parts: Path) -> None:
    for wrong in ("all", 0, -1, 1.5):
        with pytest.raises(ValidationError):
            tiny_recipe(parts, tiny_stage(recompute=wrong))


def test_a_measurement_leaves_nothing_behind(parts: Path) -> None:
    engine, _, _ = started(parts)
    state = torch.get_rng_state()
    kept(engine.bridge.llm, engine.precision())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(each.grad is None for each in engine.bridge.parameters())
