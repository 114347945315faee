"""AlignVLM's stages: the projector alone, then with the LLM; tiles of at most nine, and no token for anything else."""

import pytest
import torch

from mmbridge.connectors.base import Words
from mmbridge.encoders.base import EncoderFacts, Grid, Tiling
from mmbridge.encoders.config import TransformersConfig
from mmbridge.recipe import Recipe
from tests.recipes.test_blip_2 import trained

SIGLIP = EncoderFacts(1152, Grid(1, 27, 27))


@pytest.mark.parametrize(("overrides", "width"), [(["variant=1b"], 2048), ([], 3072), (["variant=8b"], 4096)])
def test_the_projector(overrides: list[str], width: int) -> None:
    """Two maps and two norms; the second map has a row for every word."""
    recipe, words = Recipe.load("align-vlm", *overrides), 128_256
    with torch.device("meta"):
        connector = recipe.connectors["image"].build([SIGLIP], Words(width, torch.empty(words, width)))
    counts = trained(connector, recipe.stages[0].train)
    assert sum(counts.values()) == 1152 * width + width + 2 * width + words * width + 2 * words
    assert connector.length(Tiling(3, 3, 1152, 1152)) == 10 * 729


def test_tiles() -> None:
    """All that nine tiles may be, up to six in a row, as the paper has up to nine of up to six by six."""
    recipe = Recipe.load("align-vlm")
    encoder = recipe.encoders["image"]
    assert isinstance(encoder, TransformersConfig)
    sizes = {(height // 384, width // 384) for height, width in encoder.pinpoints}
    grids = {(rows, columns) for rows in range(1, 7) for columns in range(1, 7) if 1 < rows * columns <= 9}
    assert sizes == grids


def test_stages() -> None:
    assert [(each.name, each.script) for each in Recipe.load("align-vlm").stages] == [
        ("align", "align"),
        ("instruct", "instruct"),
    ]
    main = Recipe.load("align-vlm", "variant=documents").stages
    assert [each.name for each in main] == ["align", "documents", "downstream"]
    assert {each.train for each in main} == {("connectors.*", "llm.*")}
