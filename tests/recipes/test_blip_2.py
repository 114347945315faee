"""BLIP-2's two stages: what trains in each, counted against the paper and seen in what moves."""

from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mmbridge.bridge import Bridge
from mmbridge.connectors.base import Words
from mmbridge.connectors.config import ConnectorConfig, QFormerConfig
from mmbridge.encoders.base import EncoderFacts, Grid
from mmbridge.recipe import Recipe

VIT_G = EncoderFacts(1408, Grid(1, 16, 16), prefix=1)
WORLD = (
    "variant=world",
    "engine.device=cpu",
    "stages.represent.schedule.warmup=0",
    "stages.generate.schedule.warmup=0",
)


def built(config: ConnectorConfig, width: int) -> nn.Module:
    """Its shapes alone."""
    with torch.device("meta"):
        return config.build([VIT_G], Words(width), "connectors.image")


def without_text(config: ConnectorConfig) -> ConnectorConfig:
    assert isinstance(config.resampler, QFormerConfig)
    return config.model_copy(update={"resampler": config.resampler.model_copy(update={"text": None})})


def trained(connector: nn.Module, patterns: tuple[str, ...]) -> dict[str, int]:
    """How many numbers each parameter has that a stage trains."""
    named = ((f"connectors.image.{name}", each.numel()) for name, each in connector.named_parameters())
    return {name: count for name, count in named if any(fnmatch(name, pattern) for pattern in patterns)}


def test_what_trains_is_what_the_paper_counts() -> None:
    """188 M with text, of which 1 M are in none of the released code's parts (tests/connectors/test_qformer.py); 107 M
    in front of OPT-2.7B and 108 M in front of OPT-6.7B, table 2."""
    recipe = Recipe.load("blip-2")
    represent, generate = recipe.stages
    config = recipe.connectors["image"]
    assert round(sum(trained(built(config, 2560), represent.train).values()) / 1e6, 1) == 186.7
    for width, millions in ((2560, 107), (4096, 108)):
        found = trained(built(config, width), generate.train)
        assert found == trained(built(without_text(config), width), ("*",))
        assert round(sum(found.values()) / 1e6) == millions


def changed(before: dict[str, Tensor], run: Path) -> list[set[str]]:
    """What each of the two stages of a run has changed, by name; ``before`` is what the first began with."""
    found = []
    for name in ("represent", "generate"):
        after = load_file(run / "stages" / name / "bridge.safetensors")
        assert after.keys() == before.keys()
        found.append({each for each in after if not torch.equal(after[each], before[each])})
        before = after
    return found


@pytest.mark.slow
def test_each_stage_moves_what_it_trains_and_nothing_else(tmp_path: Path) -> None:
    """First all of the Q-Former; then what it has without text, and the map. What was learnt of text stays."""
    recipe = Recipe.load("blip-2", *WORLD)
    before = Bridge(recipe).own_tensors()
    recipe.train(out=tmp_path)
    moved = changed(before, tmp_path)
    assert moved[0] == {name for name in before if ".resampler." in name}
    bare = built(without_text(recipe.connectors["image"]), 96)
    assert moved[1] == {f"connectors.image.{name}" for name, _ in bare.named_parameters()}
    assert any(".projector." in name for name in moved[1])
    assert moved[1] < set(before)
