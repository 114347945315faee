"""A Q-Former inside a bridge: how many tokens, what it starts from, training, and loading without that."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmbridge.bridge import Bridge
from mmbridge.connectors.tiles import packed_length
from mmbridge.encoders.base import Grid, Tiling
from mmbridge.recipe import Recipe
from tests.connectors.qformers import QUERIES, SMALL, blip2
from tests.connectors.samples import facts, features
from tests.connectors.test_config import build
from tests.tiny_bridge import tiny_recipe, tiny_stage
from tests.tiny_step import QUESTION, batch_of, image, sample

SQUARE, TILED = Grid(1, 4, 4), Tiling(rows=2, columns=3, height=90, width=40)
QFORMER: dict[str, Any] = SMALL | {"kind": "qformer", "text": None}


def recipe(parts: Path, folder: Path, precision: str = "float32", **changes: Any) -> Recipe:
    blip2(folder / "blip2", features=32, text=True)
    section = {
        "encoders": ["image"],
        "resampler": QFORMER | {"init": str(folder / "blip2")} | changes,
        "projector": {"kind": "linear"},
    }
    return tiny_recipe(parts, tiny_stage(steps=2, precision=precision), connectors={"image": section})


def tensors(bridge: Bridge) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in bridge.own_tensors().items()}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_starts_from_a_checkpoint_that_loading_does_not_need(
    precision: str, parts: Path, tmp_path: Path
) -> None:
    asked = recipe(parts, tmp_path, precision)
    start = Bridge(asked)
    drawn = tensors(start)
    start.initialise()
    started = tensors(start)
    name = "connectors.image.resampler.embeddings.queries"
    assert not torch.equal(drawn[name], started[name])

    trained = asked.train(out=tmp_path / "run")
    shutil.rmtree(tmp_path / "blip2")
    loaded = Bridge.from_pretrained(tmp_path / "run", device="cpu")
    for name, tensor in tensors(loaded).items():
        assert torch.equal(tensor, trained.own_tensors()[name])
        assert 0 < (tensor - started[name]).norm() < 0.3 * (1 + started[name].norm())
    assert loaded.recipe == trained.recipe
    batch = batch_of(loaded, sample(image(), QUESTION))
    ((tokens,),) = loaded.perceive(batch).tokens
    assert tokens.shape == (QUERIES, loaded.llm.width)
    assert torch.equal(tokens, trained.perceive(batch_of(trained, sample(image(), QUESTION))).tokens[0][0])


def test_a_text_branch_that_nobody_reads_stays_as_it_was(parts: Path, tmp_path: Path) -> None:
    asked = recipe(parts, tmp_path, text=SMALL["text"] | {"vocabulary": 486})
    start = Bridge(asked)
    start.initialise()
    trained = tensors(asked.train(out=tmp_path / "run"))
    for name, tensor in tensors(start).items():
        read = not any(each in name for each in ("text_feed", "embeddings.words", "embeddings.positions"))
        assert torch.equal(tensor, trained[name]) != read, name


@pytest.mark.parametrize("around", [{}, {"end_token": True, "newline": True, "position": "learned"}])
@pytest.mark.parametrize("prefix", [0, 1])
def test_lengths_are_known_beforehand(around: dict[str, Any], prefix: int) -> None:
    """CLS tokens are features like others; of a tiled image every view's queries stay, whatever is padding."""
    connector = build(facts(SQUARE, prefix=prefix), resampler=QFORMER | {"dropout": 0.0}, **around)
    seen = features(*[SQUARE] * 8, prefix=prefix, tilings=[None, TILED])
    found = connector(seen)
    assert found.mask.sum(1).tolist() == [connector.length(None), connector.length(TILED)]
    assert connector.length(None) == QUERIES + len(around.keys() - {"position"})
    assert packed_length(Grid(1, 1, QUERIES), TILED, newline=False) == TILED.views * QUERIES
    assert (connector.facts.width, connector.facts.grid, connector.facts.prefix) == (32, Grid(1, 1, QUERIES), 0)


def test_tiles_are_read_row_by_row() -> None:
    connector = build(facts(SQUARE), resampler=QFORMER | {"dropout": 0.0})
    seen = features(*[SQUARE] * 7, tilings=[TILED])
    views = connector.projector(connector.resampler(seen).values)
    assert torch.equal(connector(seen).values[0], views.flatten(0, 1))
