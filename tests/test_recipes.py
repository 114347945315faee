"""Every shipped recipe runs on the embedded world with one override, and what it trains can be used."""

from pathlib import Path

import pytest
from PIL import Image

from mmbridge.recipe import Recipe
from mmbridge.recipe_file import shipped


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped())
def test_two_steps_on_the_embedded_world(name: str, tmp_path: Path) -> None:
    recipe = Recipe.load(name, "variant=world", "engine.device=cpu")
    assert {stage.steps for stage in recipe.stages} == {2}
    bridge = recipe.train(out=tmp_path)
    answer = bridge.caption(Image.new("RGB", (96, 64), "red"), max_new_tokens=3)
    assert answer.perceptual_tokens > 0
    assert (tmp_path / "bridge" / "recipe.yaml").is_file()
