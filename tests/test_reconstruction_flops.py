"""Stages of an X-Former: torch's count against the formulas, to the last FLOP, with what nobody needs by reason."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mmbridge.bridge import Bridge
from mmbridge.data.batch import Batch
from mmbridge.flops import StepFlops
from mmbridge.objectives.weighted import WeightedObjectives
from tests.objectives.test_pairs import THREE
from tests.objectives.test_reconstruction import PATCHES, VISIBLE, recipe, samples
from tests.test_pair_flops import held, training

ALL = ("next_token", *THREE, "reconstruction")
COMBINATIONS: list[tuple[str, ...]] = [
    ("reconstruction",),
    *((kind,) for kind in THREE),
    ("itg", "reconstruction"),
    THREE,
    (*THREE, "reconstruction"),
    ("next_token", "reconstruction"),
    ALL,
]
BRANCH = "connectors.image.resampler"
WIDTH, DECODER, DECODER_HIDDEN, PIXELS = 32, 16, 2048, 3 * 8 * 8


@pytest.fixture(scope="module")
def bridge(parts: Path) -> Bridge:
    return training(Bridge(recipe(parts, ALL)), ["connectors.*"])


def towards(bridge: Bridge, kinds: Sequence[str]) -> WeightedObjectives:
    return WeightedObjectives(bridge, [each for each in bridge.recipe.stages[0].objectives if each.kind in kinds])


@pytest.mark.parametrize("kinds", COMBINATIONS, ids="+".join)
def test_every_combination(kinds: tuple[str, ...], bridge: Bridge) -> None:
    held(towards(bridge, kinds), bridge.collate()(samples()))


def test_needed_and_what_nobody_needs(bridge: Bridge) -> None:
    """Reconstruction alone, of three media: the whole images' details, and in the decoder what is behind visible
    patches."""
    batch = bridge.collate()(samples())
    objectives = towards(bridge, ("reconstruction",))
    needed, executed = held(objectives, batch)
    flops: Any = StepFlops(objectives)
    seen, read = 1 + VISIBLE, 1 + PATCHES
    matrices, pairs = 2 * DECODER**2 + 2 * DECODER * DECODER_HIDDEN, 2 * read * DECODER
    nobody = {
        "details of the whole image": flops._views["details"],
        "hidden patches, embedded": 2 * (PATCHES - VISIBLE) * PIXELS * WIDTH,
        "the decoder's last block behind what is seen": 2 * seen * (2 * matrices + 3 * pairs),
        "pixels of what is seen": 2 * 2 * seen * DECODER * PIXELS,
    }
    assert executed - needed == 3 * sum(nobody.values())


@pytest.mark.parametrize("kinds", [("reconstruction",), (*THREE, "reconstruction")], ids="+".join)
@pytest.mark.parametrize(
    "train",
    [
        "nothing",
        "connectors.image.projector.*",
        f"{BRANCH}.qformer.*",
        f"{BRANCH}.qformer.heads.*",
        f"{BRANCH}.qformer.blocks.2.cross.key.weight",
        f"{BRANCH}.dual.enriching.query.*",
        f"{BRANCH}.dual.enriching.norm.*",
        f"{BRANCH}.dual.enriching_feed.down.weight",
        f"{BRANCH}.dual.reading.*",
    ],
)
def test_frozen_parts(kinds: tuple[str, ...], train: str, bridge: Bridge) -> None:
    batch = bridge.collate()(samples((0, 1, 0)))
    try:
        held(towards(training(bridge, [train]), kinds), batch)
    finally:
        training(bridge, ["connectors.*"])


def test_an_xformer_without_a_text_branch(parts: Path) -> None:
    made = Bridge(recipe(parts, ("reconstruction", "next_token"), resampler={"qformer": small()}))
    batch = training(made, ["connectors.*"]).collate()(samples())
    for kinds in (("reconstruction",), ("reconstruction", "next_token")):
        held(towards(made, kinds), batch)


def small() -> dict[str, Any]:
    return {"queries": 3, "width": 16, "layers": 2, "heads": 4, "feed_forward": 24, "dropout": 0.1}


@pytest.mark.parametrize("kinds", [("reconstruction",), (*THREE, "reconstruction"), ALL], ids="+".join)
def test_nothing_to_see(kinds: tuple[str, ...], bridge: Bridge) -> None:
    objectives = towards(bridge, kinds)
    alone = bridge.collate()([each for each in samples() if not each.media])
    assert held(objectives, alone)[0] == StepFlops(objectives).llm(alone)
    assert StepFlops(objectives)(Batch((), {}, ())) == (0, 0)
