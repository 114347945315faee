"""The Item-Language Model's recipe: what trains in each stage, and that its first stage learns what goes together."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mmbridge.bridge import Bridge
from mmbridge.data.world.catalogue import PARTNERS, catalogue
from mmbridge.data.world.items import items
from mmbridge.evaluation.bootstrap import mean
from mmbridge.objectives.config import ItemContrastConfig
from mmbridge.objectives.weighted import WeightedObjectives
from mmbridge.recipe import Recipe
from tests.recipes.test_blip_2 import changed

WORLD = ("variant=world", "engine.device=cpu", "stages.represent.schedule.warmup=0")
CHANCE = PARTNERS / 63
"""So many of the 63 others go together with an item."""


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


@torch.no_grad()
def loss(bridge: Bridge) -> float:
    """Of item–item contrast, for a pair of held-out items among 64."""
    module, source = WeightedObjectives(bridge.eval(), [ItemContrastConfig()]), items("test", 0, "pairs")
    batches = [bridge.collate()([source[PARTNERS * item + place] for item in range(64)]) for place in range(PARTNERS)]
    return float(sum(module(each, module.terms(batches)) for each in batches))


SMALL = ("width=48", "layers=2", "queries=4", "feed_forward=96", "dropout=0", "text.shared=32")


@pytest.mark.slow
def test_held_out_items_find_what_was_consumed_with_them(tmp_path: Path) -> None:
    """Item–item contrast on the other items for 150 steps, by a small Q-Former.

    As drawn it tells held-out pairs apart no better than guessing does; but some of the nearness of the vectors, which
    are factors of what was consumed, is there in it from the start, so that its recall is above chance as well.
    """
    changes = [f"connectors.item.resampler.{each}" for each in SMALL]
    changes += ["objectives=[{kind: item_contrast}]", "steps=150", "batch=64", "optim.lr=5e-4"]
    named = [each if each.startswith("connectors") else f"stages.represent.{each}" for each in changes]
    recipe = Recipe.load("item-language-model", *WORLD, *named)
    before = Bridge(recipe)
    after = recipe.model_copy(update={"stages": recipe.stages[:1]}).train(out=tmp_path)
    recall, drawn = mean(found(after)), mean(found(before))
    losses = loss(before), loss(after)
    print(f"recall@1 {recall}, as drawn {drawn}, chance {CHANCE:.3f}; loss {losses}, guessing {math.log(64):.3f}")
    assert losses[0] == pytest.approx(math.log(64), abs=0.1)
    assert losses[1] < losses[0] - 0.4
    assert recall.above(CHANCE)


@pytest.mark.slow
def test_each_stage_moves_what_it_trains_and_nothing_else(tmp_path: Path) -> None:
    """First all of the Q-Former; then what it has without text, and the map.

    Where there is one key to attend to, what asks and what is asked for make no difference: biases of both stay, and
    their matrices have nothing but weight decay.
    """
    recipe = Recipe.load("item-language-model", *WORLD, "stages.generate.schedule.warmup=0")
    before = Bridge(recipe).own_tensors()
    recipe.train(out=tmp_path)
    moved = changed(before, tmp_path)
    alone = {name for name in before if name.endswith((".cross.query.bias", ".cross.key.bias"))}
    assert len(alone) == 4
    assert moved[0] == {name for name in before if ".resampler." in name} - alone
    text = (".heads.", ".text_feed.", ".embeddings.words.", ".embeddings.positions.")
    assert moved[1] == {name for name in before if not any(part in name for part in text)} - alone
    bridge = Bridge.from_pretrained(tmp_path, device="cpu")
    number = int(catalogue(0).split("test")[0])
    np.save(tmp_path / "items.npy", catalogue(0).items)
    asked = bridge.ask(f"{tmp_path}/items.npy#{number}", "what shape is the object?", max_new_tokens=3)
    again = bridge.ask(catalogue(0).items[number], "what shape is the object?", max_new_tokens=3)
    assert (asked.text, asked.perceptual_tokens) == (again.text, 8)
