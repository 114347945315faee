"""A connector's forward and backward pass counted by torch against the formula of what it needs, to the last FLOP."""

from fnmatch import fnmatch
from typing import Any

import pytest

from mmbridge.connector_flops import ConnectorFlops
from mmbridge.encoders.base import Grid, Tiling
from mmbridge.evaluation.flops import executed_flops
from tests.connectors.samples import facts, features
from tests.connectors.test_config import build

SQUARE = Grid(1, 4, 4)
PADDED, FILLED = Tiling(rows=2, columns=1, height=90, width=90), Tiling(rows=2, columns=1, height=80, width=40)
M, W, BLOCKS, HIDDEN, N, D, OUT = 5, 32, 4, 48, 17, 6, 10
QFORMER: dict[str, Any] = {
    "kind": "qformer",
    "queries": M,
    "width": W,
    "layers": BLOCKS,
    "heads": 4,
    "feed_forward": HIDDEN,
    "text": {"vocabulary": 50, "positions": 20, "length": 20},
}


def counted(
    resampler: dict[str, Any], train: str, tiling: Tiling | None, prefix: int = 0, *, beside: bool = False
) -> tuple[int, int]:
    """What torch counts, and what the formula says, with nothing but what ``train`` matches training.

    ``beside``: there is a second encoder, of another grid and width.
    """
    sources = [facts(SQUARE, prefix=prefix), facts(Grid(1, 3, 3), width=8, prefix=1)][: 1 + beside]
    connector = build(*sources, resampler=resampler, projector={"kind": "mlp", "depth": 3})
    for name, each in connector.named_parameters():
        each.requires_grad_(fnmatch(name, train))
    views = 1 if tiling is None else tiling.views
    seen = [features(*[each.grid] * views, width=each.width, prefix=each.prefix, tilings=[tiling]) for each in sources]

    def work() -> None:
        tokens = connector(*seen).values
        if tokens.requires_grad:
            tokens.sum().backward()

    return executed_flops(work), ConnectorFlops(connector)(tiling)


@pytest.mark.parametrize(
    "train",
    [
        "*",
        "nothing",
        "projector.*",
        "projector.linears.1.*",
        "resampler.*",
        "resampler.feature_norm.*",
        "resampler.embeddings.queries",
        "resampler.embeddings.norm.bias",
        "resampler.blocks.2.cross.*",
        "resampler.blocks.2.cross.value.bias",
        "resampler.blocks.2.attention.key.weight",
        "resampler.blocks.1.attention.value.*",
        "resampler.blocks.2.attention.norm.*",
        "resampler.blocks.0.query_feed.up.*",
        "resampler.blocks.3.query_feed.norm.bias",
        "resampler.blocks.3.query_feed.down.weight",
    ],
)
@pytest.mark.parametrize("changes", [{}, {"cross_every": 3, "normalise_features": False, "text": None}])
def test_a_qformer(train: str, changes: dict[str, Any]) -> None:
    executed, needed = counted(QFORMER | changes, train, None, prefix=1)
    assert executed == needed > 0


def test_a_qformer_that_trains_whole() -> None:
    """The formula as the header has it: three times over, but for features that pass no norm."""
    attending, feed = 4 * M * W * W + 2 * M * M * W, 2 * M * W * HIDDEN
    crossing, features_ = 2 * M * W * W + 2 * M * N * W, 2 * N * D * W
    projected = M * (W * OUT + 2 * OUT * OUT)
    for norm in (False, True):
        forward = BLOCKS * (attending + feed) + 2 * crossing
        expected = 2 * (3 * (forward + projected) + (3 if norm else 2) * 2 * features_)
        executed, needed = counted(QFORMER | {"normalise_features": norm}, "*", None, prefix=1)
        assert executed == needed == expected


XFORMER: dict[str, Any] = {
    "kind": "xformer",
    "heads": 2,
    "qformer": {name: QFORMER[name] for name in QFORMER if name != "kind"},
}


@pytest.mark.parametrize(
    "train",
    [
        "*",
        "nothing",
        "projector.*",
        "resampler.*",
        "resampler.qformer.*",
        "resampler.qformer.blocks.3.query_feed.norm.bias",
        "resampler.dual.*",
        "resampler.dual.enriching.query.*",
        "resampler.dual.enriching.value.weight",
        "resampler.dual.enriching.norm.bias",
        "resampler.dual.enriching_feed.up.bias",
        "resampler.dual.reading.query.weight",
        "resampler.dual.reading.key.*",
        "resampler.dual.reading_feed.down.*",
    ],
)
@pytest.mark.parametrize("tiling", [None, FILLED])
def test_an_xformer(train: str, tiling: Tiling | None) -> None:
    executed, needed = counted(XFORMER, train, tiling, prefix=1, beside=True)
    assert executed == needed > 0


def test_what_an_xformer_adds() -> None:
    """The header's formula, three times over where all trains but for details, which have no gradient."""
    details, width = 10, 8
    forward = 2 * M * W * width + 2 * details * M * width + details * width**2 + 2 * details * width * HIDDEN
    forward += 2 * M * W**2 + 2 * details * width * W + 2 * details * M * W + 2 * M * W * HIDDEN
    added = 3 * forward + 2 * details * width**2
    whole, _ = counted(XFORMER, "*", None, prefix=1, beside=True)
    alone, _ = counted(QFORMER, "*", None, prefix=1)
    assert whole == alone + 2 * added


@pytest.mark.parametrize("train", ["*", "projector.linears.2.*", "nothing"])
@pytest.mark.parametrize(
    ("resampler", "tiling"),
    [
        (QFORMER, PADDED),
        (QFORMER, FILLED),
        ({"kind": "identity"}, FILLED),
        ({"kind": "average_pool", "factor": 2}, FILLED),
    ],
)
def test_tiles(resampler: dict[str, Any], tiling: Tiling, train: str) -> None:
    executed, needed = counted(resampler, train, tiling)
    assert executed == needed > 0


def test_padding_of_tiles_is_projected_but_not_needed() -> None:
    executed, needed = counted({"kind": "identity"}, "*", PADDED)
    assert executed > needed
