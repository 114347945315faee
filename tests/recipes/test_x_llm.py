"""X-LLM's stages on images: the Q-Former trains in the one, and is frozen but for its queries in the other."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmbridge.recipe import Recipe
from tests.recipes.test_blip_2 import built, trained

JOINT = {"resampler.embeddings.queries", "projector.linear.weight", "projector.linear.bias"}


def test_what_trains() -> None:
    """105 M of a Q-Former without text and its map; then 32 queries and the map."""
    recipe = Recipe.load("x-llm")
    image, joint = recipe.stages
    connector = built(recipe.connectors["image"], 4096)
    found = trained(connector, joint.train)
    assert set(found) == {f"connectors.image.{name}" for name in JOINT}
    assert sum(found.values()) == 32 * 768 + 768 * 4096 + 4096
    assert trained(connector, image.train) == trained(connector, ("*",))


@pytest.mark.slow
def test_the_q_former_stays_as_the_first_stage_left_it(tmp_path: Path) -> None:
    warm = ("stages.image.schedule.warmup=0",)
    Recipe.load("x-llm", "variant=world", "engine.device=cpu", *warm).train(out=tmp_path)
    image, joint = (load_file(tmp_path / "stages" / name / "bridge.safetensors") for name in ("image", "joint"))
    moved = {name for name in image if not torch.equal(image[name], joint[name])}
    assert moved == {f"connectors.image.{name}" for name in JOINT}
