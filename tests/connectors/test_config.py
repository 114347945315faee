"""What a recipe can say about connectors, and what it is told when it cannot be built."""

import subprocess
import sys
from typing import Any

import pytest
import torch

from mmbridge.connectors.base import Words
from mmbridge.connectors.config import ConnectorConfig
from mmbridge.connectors.connector import Connector
from mmbridge.encoders.base import EncoderFacts, Grid
from mmbridge.errors import RecipeError
from tests.connectors.samples import facts

KEY = "connectors.image"


def build(*described: EncoderFacts, **options: Any) -> Connector:
    names = ("left", "right")[: len(described)]
    config = ConnectorConfig.model_validate({"encoders": names, "projector": {"kind": "linear"}, **options})
    return config.build(described, Words(10), KEY)


def test_reading_configs_needs_no_torch() -> None:
    code = (
        "import sys, mmbridge.connectors.config; sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("resampler", "grid", "line"),
    [
        (
            {"kind": "average_pool", "factor": 3},
            Grid(1, 6, 8),
            "connectors.image.resampler.factor: expected a divisor of the encoder's grid 6×8, found 3",
        ),
        (
            {"kind": "pixel_shuffle", "factor": 2},
            Grid(1, 7, 8),
            "connectors.image.resampler.factor: expected a divisor of the encoder's grid 7×8, found 2",
        ),
        (
            {"kind": "concat", "count": 4},
            Grid(1, 8, 6),
            "connectors.image.resampler.count: expected a divisor of the encoder's grid 8×6, found 4",
        ),
        (
            {"kind": "concat", "count": 4},
            Grid(10, 1, 1),
            "connectors.image.resampler.count: expected a divisor of the encoder's grid 10×1×1, found 4",
        ),
    ],
)
def test_a_grid_that_does_not_divide(resampler: dict[str, Any], grid: Grid, line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build(facts(grid), resampler=resampler)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("resampler", "key"),
    [
        ({"kind": "average_pool", "factor": 2}, "factor"),
        ({"kind": "pixel_shuffle", "factor": 2}, "factor"),
        ({"kind": "concat", "count": 2}, "count"),
    ],
)
def test_tokens_before_the_grid(resampler: dict[str, Any], key: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build(facts(Grid(1, 4, 4), prefix=1), resampler=resampler)
    assert str(caught.value) == (
        f"connectors.image.resampler.{key}: expected the grid's tokens alone, found 1 in front of them "
        "(CLS or registers); set the encoder's tokens to patches"
    )


def test_encoders_of_different_grids() -> None:
    with pytest.raises(RecipeError) as caught:
        build(facts(Grid(1, 4, 4)), facts(Grid(1, 8, 8)))
    assert (
        str(caught.value)
        == "connectors.image.encoders: expected encoders of one grid, found 4×4 (left) and 8×8 (right)"
    )


def test_encoders_of_which_one_has_a_cls_token() -> None:
    with pytest.raises(RecipeError) as caught:
        build(facts(Grid(1, 4, 4)), facts(Grid(1, 4, 4), prefix=1))
    assert str(caught.value).endswith("found 4×4 (left) and 4×4 and 1 in front (right); set tokens to patches for each")


def test_concat_runs_along_time_where_there_are_no_rows() -> None:
    assert build(facts(Grid(8, 1, 1)), resampler={"kind": "concat", "count": 4}).facts.grid == Grid(2, 1, 1)
    assert build(facts(Grid(1, 4, 8)), resampler={"kind": "concat", "count": 4}).facts.grid == Grid(1, 4, 2)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"projector": {"kind": "mlp"}}, 20_979_712),
        ({"projector": {"kind": "linear"}}, 1024 * 4096 + 4096),
        ({"projector": {"kind": "mlp"}, "newline": True, "end_token": True}, 20_979_712 + 2 * 4096),
        ({"projector": {"kind": "mlp"}, "position": "learned"}, 20_979_712 + 576 * 4096),
        ({"projector": {"kind": "mlp"}, "resampler": {"kind": "average_pool", "factor": 2}}, 20_979_712),
    ],
)
def test_parameter_counts(options: dict[str, Any], count: int) -> None:
    """LLaVA-1.5's 20,979,712 on CLIP ViT-L/14-336 and a 7B LLM, and what each option adds to it."""
    config = ConnectorConfig.model_validate({"encoders": ["clip"], **options})
    with torch.device("meta"):
        connector = config.build([EncoderFacts(1024, Grid(1, 24, 24))], Words(4096))
    assert sum(tensor.numel() for tensor in connector.parameters()) == count
