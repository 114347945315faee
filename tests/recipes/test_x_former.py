"""X-Former's two stages: what trains in each, counted and seen in what moves."""

from pathlib import Path

import pytest
import torch

from mmbridge.bridge import Bridge
from mmbridge.connectors.base import Words
from mmbridge.connectors.config import ConnectorConfig, XFormerConfig
from mmbridge.connectors.connector import Connector
from mmbridge.encoders.base import EncoderFacts, Grid
from mmbridge.recipe import Recipe
from tests.recipes.test_blip_2 import WORLD, changed, trained

SOURCES = [EncoderFacts(1408, Grid(1, 16, 16), prefix=1), EncoderFacts(1280, Grid(1, 16, 16), prefix=1)]


def built(config: ConnectorConfig, width: int, sources: list[EncoderFacts] = SOURCES) -> Connector:
    """Its shapes alone."""
    with torch.device("meta"):
        return config.build(sources, Words(width), "connectors.image")


def without_text(config: ConnectorConfig) -> ConnectorConfig:
    assert isinstance(config.resampler, XFormerConfig)
    qformer = config.resampler.qformer.model_copy(update={"text": None})
    return config.model_copy(update={"resampler": config.resampler.model_copy(update={"qformer": qformer})})


def test_what_trains_is_about_what_the_paper_counts() -> None:
    """BLIP-2's 108 M in front of OPT-6.7B and about 20 M more, here 21; with the text branch 187 M and as many more."""
    recipe = Recipe.load("x-former")
    represent, generate = recipe.stages
    config = recipe.connectors["image"]
    found = trained(built(config, 4096), generate.train)
    assert found == trained(built(without_text(config), 4096), ("*",))
    assert round(sum(found.values()) / 1e6) == 129
    assert round(sum(trained(built(config, 4096), represent.train).values()) / 1e6, 1) == 186.7 + 21.0


@pytest.mark.slow
def test_each_stage_moves_what_it_trains_and_nothing_else(tmp_path: Path) -> None:
    """First all of the resampler; then what it has without text, and the map. No encoder, and no decoder, is saved."""
    recipe = Recipe.load("x-former", *WORLD)
    before = Bridge(recipe).own_tensors()
    recipe.train(out=tmp_path)
    moved = changed(before, tmp_path)
    assert moved[0] == {name for name in before if ".resampler." in name}
    sources = [EncoderFacts(128, Grid(1, 8, 8), prefix=1)] * 2
    bare = built(without_text(recipe.connectors["image"]), 96, sources)
    assert moved[1] == {f"connectors.image.{name}" for name, _ in bare.named_parameters()}
