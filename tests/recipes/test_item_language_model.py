"""The Item-Language Model's recipe: what trains in each stage, and that its first stage learns what goes together."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from mmbridge.bridge import Bridge
from mmbridge.data.world.catalogue import catalogue
from mmbridge.evaluation.bootstrap import mean
from mmbridge.recipe import Recipe

WORLD = ("variant=world", "engine.device=cpu", "stages.represent.schedule.warmup=0")
STEPS = 60
CHANCE = 4 / 63
"""Four of the 63 others go together with an item."""


def test_the_first_stage_has_four_objectives_and_eight_layers() -> None:
    recipe = Recipe.load("item-language-model")
    represent, generate = recipe.stages
    assert [each.kind for each in represent.objectives] == ["itc", "itm", "itg", "item_contrast"]
    assert [each.kind for each in generate.objectives] == ["next_token"]
    resampler = recipe.connectors["item"].resampler
    assert resampler.model_dump()["layers"] == 8
    assert not any(pattern.startswith("llm") for stage in recipe.stages for pattern in stage.train)


@torch.no_grad()
def directions(bridge: Bridge) -> NDArray[np.float32]:
    """(items, M, C): the held-out items' queries in the shared space."""
    resampler: Any = bridge.connectors["item"].get_submodule("resampler")
    world = catalogue(0)
    values = torch.from_numpy(world.items[world.split("test")])[:, None]
    queries = resampler.read("queries", resampler.image(values, torch.ones(values.shape[:2], dtype=torch.bool))).queries
    return np.asarray(resampler.heads.images(queries))


def found(bridge: Bridge) -> NDArray[np.float64]:
    """(items,), 1 where the nearest other held-out item is one of those consumed together with it most."""
    world, made = catalogue(0), directions(bridge)
    own, partners = world.split("test"), world.partners("test")
    near = np.einsum("imc,jnc->imjn", made, made).max(axis=(1, 3))
    np.fill_diagonal(near, -np.inf)
    return np.array([own[best] in row for best, row in zip(near.argmax(axis=1), partners, strict=True)], np.float64)


@pytest.mark.slow
def test_held_out_items_find_what_was_consumed_with_them(tmp_path: Path) -> None:
    """A minute of the first stage on the other items: above chance, and above the Q-Former as drawn."""
    changes = (f"stages.represent.steps={STEPS}", "stages.represent.batch=32", "stages.represent.optim.lr=1e-3")
    recipe = Recipe.load("item-language-model", *WORLD, *changes)
    before = found(Bridge(recipe))
    recipe = recipe.model_copy(update={"stages": recipe.stages[:1]})
    after = found(recipe.train(out=tmp_path))
    trained, drawn, gain = mean(after), mean(before), mean(after - before)
    print(f"recall@1 {trained}, as drawn {drawn}, gained {gain}, chance {CHANCE:.3f}")
    assert trained.above(CHANCE)
    assert gain.above(0)


@pytest.mark.slow
def test_each_stage_moves_what_it_trains_and_nothing_else(tmp_path: Path) -> None:
    """First all of the Q-Former; then what it has without text, and the map."""
    recipe = Recipe.load("item-language-model", *WORLD, "stages.generate.schedule.warmup=0")
    before, moved = Bridge(recipe).own_tensors(), []
    recipe.train(out=tmp_path)
    for name in ("represent", "generate"):
        after = load_file(tmp_path / "stages" / name / "bridge.safetensors")
        moved.append({each for each in after if not torch.equal(after[each], before[each])})
        before = after
    assert moved[0] == {name for name in before if ".resampler." in name}
    text = (".heads.", ".text_feed.", ".embeddings.words.", ".embeddings.positions.")
    assert moved[1] == {name for name in before if not any(part in name for part in text)}
    bridge = Bridge.from_pretrained(tmp_path, device="cpu")
    number = int(catalogue(0).split("test")[0])
    np.save(tmp_path / "items.npy", catalogue(0).items)
    asked = bridge.ask(f"{tmp_path}/items.npy#{number}", "what shape is the object?", max_new_tokens=3)
    again = bridge.ask(catalogue(0).items[number], "what shape is the object?", max_new_tokens=3)
    assert (asked.text, asked.perceptual_tokens) == (again.text, 8)
