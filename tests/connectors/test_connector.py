"""The whole connector: names, masks, lengths, tiles, and what stands around a medium's tokens."""

from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmbridge.connectors.base import PerceptualTokens
from mmbridge.connectors.connector import Connector
from mmbridge.connectors.tiles import pack
from mmbridge.encoders.base import Features, Grid, Tiling
from mmbridge.errors import RecipeError
from tests.connectors.samples import facts, features
from tests.connectors.test_config import build

RESAMPLERS: list[dict[str, Any]] = [
    {"kind": "identity"},
    {"kind": "average_pool", "factor": 2},
    {"kind": "concat", "count": 2},
    {"kind": "pixel_shuffle", "factor": 2},
]
AROUND: list[dict[str, Any]] = [
    {},
    {"end_token": True},
    {"newline": True},
    {"position": "learned"},
    {"end_token": True, "newline": True, "position": "learned"},
]
SQUARE = Grid(1, 4, 4)
TILED = Tiling(rows=2, columns=1, height=90, width=40)

every_resampler = pytest.mark.parametrize("resampler", RESAMPLERS, ids=lambda one: one["kind"])
every_decoration = pytest.mark.parametrize("around", AROUND, ids=lambda one: "+".join(one) or "bare")


def shaken(connector: Connector) -> Connector:
    """Positions start at zero; move them, so that a wrong one shows."""
    if connector.position is not None:
        torch.nn.init.normal_(connector.position)
    return connector


def real(tokens: PerceptualTokens) -> list[Tensor]:
    return [row[mask] for row, mask in zip(tokens.values, tokens.mask, strict=True)]


@every_resampler
@every_decoration
def test_length_is_known_beforehand(resampler: dict[str, Any], around: dict[str, Any]) -> None:
    connector = build(facts(SQUARE), resampler=resampler, **around)
    tilings = [None, TILED, Tiling(1, 2, 30, 70)]
    seen = features(*[SQUARE] * 7, tilings=tilings)
    assert [len(row) for row in real(connector(seen))] == [connector.length(tiling) for tiling in tilings]


@every_resampler
@every_decoration
def test_ragged_views_are_what_each_is_alone(resampler: dict[str, Any], around: dict[str, Any]) -> None:
    connector = shaken(build(facts(SQUARE), resampler=resampler, **around))
    grids = (Grid(1, 2, 4), SQUARE, Grid(1, 2, 2))
    seen = features(*grids)
    together = real(connector(seen))
    for row, grid in enumerate(grids):
        values, mask = seen.values[row : row + 1, : grid.cells], seen.mask[row : row + 1, : grid.cells]
        (alone,) = real(connector(Features(values, mask, (grid,), (None,))))
        assert torch.allclose(together[row], alone, atol=1e-6)


@every_resampler
@every_decoration
@pytest.mark.parametrize("tilings", [None, [None, TILED]], ids=["plain", "tiled"])
def test_what_is_not_real_changes_nothing(
    resampler: dict[str, Any], around: dict[str, Any], tilings: list[Tiling | None] | None
) -> None:
    """Outputs and gradients stay, whatever stands at masked tokens: here a whole block that a window can fill."""
    connector = shaken(build(facts(SQUARE), resampler=resampler, **around))
    seen = features(*[SQUARE] * (4 if tilings else 2), tilings=tilings)
    mask = seen.mask.clone()
    mask[1, [0, 1, 4, 5]] = False

    def outcome(filler: float) -> list[Tensor]:
        values = seen.values.masked_fill(~mask[..., None], filler)
        tokens = connector(replace(seen, values=values, mask=mask))
        rows = torch.cat(real(tokens))
        return [rows, *torch.autograd.grad(rows.square().sum(), list(connector.parameters()))]

    for one, other in zip(outcome(0.0), outcome(float("nan")), strict=True):
        assert torch.equal(one, other)
    assert connector(replace(seen, mask=mask)).mask.sum() < connector(seen).mask.sum()


def test_names_are_readable_and_match_globs() -> None:
    connector = build(facts(SQUARE), projector={"kind": "mlp"}, newline=True, end_token=True, position="learned")
    parameters = {f"connectors.image.{name}" for name, _ in connector.named_parameters()}
    assert parameters == {
        "connectors.image.projector.linears.0.weight",
        "connectors.image.projector.linears.0.bias",
        "connectors.image.projector.linears.1.weight",
        "connectors.image.projector.linears.1.bias",
        "connectors.image.newline",
        "connectors.image.end_token",
        "connectors.image.position",
    }
    assert all(fnmatch(name, "connectors.image.*") for name in parameters)
    assert not list(connector.buffers())


@every_resampler
def test_state_returns_strictly(resampler: dict[str, Any], tmp_path: Path) -> None:
    def made() -> Connector:
        return build(facts(SQUARE), resampler=resampler, projector={"kind": "mlp"}, **AROUND[-1])

    first, second, seen = shaken(made()), made(), features(SQUARE, SQUARE)
    save_file(first.state_dict(), tmp_path / "connector.safetensors")
    state = load_file(tmp_path / "connector.safetensors")
    second.load_state_dict(state, strict=True)
    assert torch.equal(first(seen).values, second(seen).values)
    with pytest.raises(RuntimeError, match="end_token"):
        second.load_state_dict({name: tensor for name, tensor in state.items() if name != "end_token"}, strict=True)


def test_end_token_follows_each_medium() -> None:
    connector = build(facts(SQUARE), end_token=True)
    assert connector.end_token is not None
    for row, count in zip(real(connector(features(SQUARE, Grid(1, 2, 2)))), (16, 4), strict=True):
        assert len(row) == count + 1
        assert torch.equal(row[-1], connector.end_token)


def test_tiles_newline_and_end_token_stand_in_order() -> None:
    """Thumbnail, tiles with a newline after each row, end token; the untiled medium has one newline and its end."""
    connector = build(facts(SQUARE), newline=True, end_token=True)
    assert connector.newline is not None
    assert connector.end_token is not None
    seen = features(*[SQUARE] * 4, tilings=[None, TILED])
    plain, tiled = real(connector(seen))
    views = connector.projector(seen.values)
    assert torch.equal(plain, torch.cat([views[0], connector.newline[None], connector.end_token[None]]))
    expected, _ = pack(views[1:], seen.mask[1:], SQUARE, TILED, connector.newline)
    assert torch.equal(tiled, torch.cat([expected, connector.end_token[None]]))


def test_positions_are_added_by_place_in_the_grid() -> None:
    connector = shaken(build(facts(SQUARE, prefix=1), position="learned"))
    assert connector.position is not None
    small = Grid(1, 2, 3)
    seen = features(SQUARE, small, prefix=1)
    rows, bare = real(connector(seen)), connector.projector(seen.values)
    assert torch.allclose(rows[0], bare[0] + connector.position, atol=1e-6)
    places = [0, 1, 2, 3, 5, 6, 7]  # the prefix, then two rows of three in a table four wide
    assert torch.allclose(rows[1], bare[1, :7] + connector.position[places], atol=1e-6)


def test_positions_start_as_if_there_were_none() -> None:
    connector = build(facts(SQUARE), position="learned")
    seen = features(SQUARE)
    assert torch.equal(connector(seen).values, connector.projector(seen.values))


def test_a_grid_beyond_the_learned_positions_is_refused() -> None:
    connector = build(facts(SQUARE), position="learned")
    with pytest.raises(RecipeError) as caught:
        connector(features(Grid(1, 4, 5)))
    line = "connectors.image.position: expected grids within 4×4, found 4×5; set position to none"
    assert str(caught.value) == line


def test_several_encoders_are_joined_on_the_width() -> None:
    connector = build(facts(SQUARE), facts(SQUARE, width=3))
    left, right = features(SQUARE, SQUARE), features(SQUARE, SQUARE, width=3, seed=1)
    expected = connector.projector(torch.cat([left.values, right.values], dim=-1))
    assert torch.equal(connector(left, right).values, expected)
    masked = right.mask.clone()
    masked[0, 3] = False
    assert torch.equal(connector(left, replace(right, mask=masked)).mask, masked)


def test_encoders_that_cut_a_medium_differently_are_refused() -> None:
    connector = build(facts(SQUARE), facts(SQUARE))
    with pytest.raises(RecipeError, match=r"^connectors\.image\.encoders: expected encoders that cut a medium"):
        connector(features(*[SQUARE] * 3), features(*[SQUARE] * 3, tilings=[TILED]))


@pytest.mark.parametrize(
    "use", [lambda one: one.length(TILED), lambda one: one(features(*[SQUARE] * 3, prefix=1, tilings=[TILED]))]
)
def test_tiles_with_a_cls_token_are_refused(use: Callable[[Connector], object]) -> None:
    connector = build(facts(SQUARE, prefix=1))
    with pytest.raises(RecipeError) as caught:
        use(connector)
    assert str(caught.value) == (
        "connectors.image.encoders: expected tiles of the grid's tokens alone, found 1 in front of them; "
        "set the encoder's tokens to patches"
    )


def test_features_in_half_precision_meet_a_connector_in_full() -> None:
    connector, seen = build(facts(SQUARE)), features(SQUARE)
    assert connector(replace(seen, values=seen.values.bfloat16())).values.dtype is torch.float32
    assert connector.bfloat16()(seen).values.dtype is torch.bfloat16
