"""Q-Formers that read instructions: torch's count against the formulas, to the last FLOP."""

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch

from mmbridge.bridge import Bridge
from mmbridge.connectors.base import Instructions
from mmbridge.data.batch import Batch
from mmbridge.data.sample import Medium, Sample, conversation
from mmbridge.encoders.base import Grid, Tiling
from mmbridge.evaluation.flops import executed_flops
from mmbridge.flops import StepFlops
from mmbridge.instruction_flops import InstructionFlops, Told
from mmbridge.objectives.weighted import WeightedObjectives
from tests.connectors.samples import facts, features
from tests.connectors.test_config import build
from tests.objectives.test_pairs import TEXT, THREE, picture, recipe
from tests.test_pair_flops import ASKING, BLOCKS, HIDDEN, LLM, PAIR, PLACE, M, W, bridge_of, held, towards, training
from tests.test_transport_flops import fixed  # noqa: F401 - a fixture

SQUARE, TILED = Grid(1, 4, 4), Tiling(rows=2, columns=1, height=80, width=40)
N, D, OUT = 16, 6, 10
QFORMER: dict[str, Any] = {
    "kind": "qformer",
    "queries": M,
    "width": W,
    "layers": BLOCKS,
    "heads": 4,
    "feed_forward": HIDDEN,
    "text": {"vocabulary": 50, "positions": 20, "length": 20, "instruction": True},
}
TOLD: Told = ((0, 3), (0, 7), (1, 5))


def counted(train: str, tilings: Sequence[Tiling | None], told: Told) -> tuple[int, InstructionFlops]:
    """What torch counts, and the formulas, with nothing but what ``train`` matches training."""
    connector = build(facts(SQUARE), resampler=QFORMER, projector={"kind": "linear"})
    for name, each in connector.named_parameters():
        each.requires_grad_(fnmatch(name, train))
    views = [SQUARE for each in tilings for _ in range(1 if each is None else each.views)]
    seen = features(*views, tilings=tilings)
    lengths = torch.tensor([length for _, length in told])
    ids = torch.ones(len(told), int(lengths.max()), dtype=torch.long)
    read = Instructions(tuple(medium for medium, _ in told), ids, torch.arange(ids.shape[1]) < lengths[:, None])

    def work() -> None:
        tokens = connector(seen, instructions=read).values
        if tokens.requires_grad:
            tokens.sum().backward()

    return executed_flops(work), InstructionFlops(connector)


@pytest.mark.parametrize(
    "train",
    [
        "*",
        "nothing",
        "projector.*",
        "resampler.*",
        "resampler.feature_norm.*",
        "resampler.embeddings.queries",
        "resampler.embeddings.words.*",
        "resampler.blocks.2.cross.value.bias",
        "resampler.blocks.0.text_feed.up.*",
        "resampler.blocks.3.attention.key.weight",
        "resampler.blocks.3.query_feed.norm.bias",
    ],
)
@pytest.mark.parametrize("tilings", [[None, None], [TILED, None]], ids=["whole", "tiled"])
def test_executed_is_what_torch_counts(train: str, tilings: list[Tiling | None]) -> None:
    found, flops = counted(train, tilings, TOLD)
    assert found == flops.executed(tilings, TOLD)
    assert flops.needed(tilings, TOLD) < found
    assert flops.learns == (train != "nothing")


def test_needed_and_what_nobody_needs() -> None:
    """All trains: every product three times. Padding, and in the last block places of text that nobody reads."""
    _, flops = counted("*", [None, None], TOLD)
    lengths = [length for _, length in TOLD]
    longest, rows, total = max(lengths), len(lengths), sum(lengths)
    beside = sum((M + length) ** 2 for length in lengths)
    crossing, image = rows * (2 * M * W * W + 2 * M * N * W), 2 * 2 * N * D * W
    blocks = BLOCKS * (PLACE * (rows * M + total) + PAIR * beside)
    unread = ASKING * total + PAIR * sum(length * (M + length) for length in lengths)
    needed = blocks - unread + 2 * (crossing + image) + rows * M * W * OUT
    padding = BLOCKS * (PLACE * (rows * longest - total) + PAIR * (rows * (M + longest) ** 2 - beside))
    assert flops.needed([None, None], TOLD) == 6 * needed
    assert flops.executed([None, None], TOLD) == 6 * (needed + unread + padding)


def test_another_look_costs_no_keys_and_values() -> None:
    one, two, apart = ([(0, 5)], [(0, 5), (0, 5)], [(0, 5), (1, 5)])
    alone, together = (counted("*", [None], told)[0] for told in (one, two))
    different = counted("*", [None, None], apart)[0]
    assert different == 2 * alone
    assert different - together == 6 * 2 * 2 * N * D * W


@pytest.fixture(scope="module")
def bridge(parts: Path) -> Bridge:
    return bridge_of(parts, resampler={"text": TEXT | {"instruction": True}})


def samples(*questions: tuple[Medium, str]) -> list[Sample]:
    """With answers of unequal length; among them one without a medium."""
    found = [
        Sample(question, conversation(("user", (medium, question)), ("assistant", ("yes" + " it is" * n,))))
        for n, (medium, question) in enumerate(questions)
    ]
    return [*found, Sample("alone", conversation(("user", ("Say yes.",)), ("assistant", ("Yes.",))))]


@pytest.fixture(scope="module")
def batch(bridge: Bridge) -> Batch:
    red, blue = picture("red"), picture("blue")
    made = bridge.collate()(samples((red, "What is it?"), (red, "Is it blue?"), (blue, "What?"), (red, "What is it?")))
    assert made.looked == ((0,), (1,), (2,), (0,), ())
    return made


@pytest.mark.parametrize("kinds", [("next_token",), *((kind,) for kind in THREE), THREE, ("next_token", *THREE)])
def test_a_step(kinds: tuple[str, ...], bridge: Bridge, batch: Batch) -> None:
    """Objectives of pairs read queries alone and the answers, the LLM what queries find beside the instructions."""
    held(towards(bridge, kinds), batch)
    alone = bridge.collate()(samples())
    held(towards(bridge, kinds), alone)


def test_the_llm_shares_keys_and_values_with_pairs(bridge: Bridge, batch: Batch) -> None:
    pairs, words, both = (
        StepFlops(towards(bridge, kinds)) for kinds in (THREE, ("next_token",), ("next_token", *THREE))
    )
    assert words.connectors(batch) > 6 * 3 * M * W * LLM
    shared = pairs.connectors(batch) + words.connectors(batch) - both.connectors(batch)
    cells, width = 16, 32
    assert shared == 4 * 2 * 2 * 2 * cells * width * W  # of two blocks and two views, whose features are frozen


@pytest.mark.parametrize("kinds", [("next_token",), ("next_token", *THREE)], ids="+".join)
@pytest.mark.parametrize("train", ["nothing", "connectors.image.projector.*", "connectors.image.resampler.blocks.*"])
def test_frozen_parts(kinds: tuple[str, ...], train: str, bridge: Bridge, batch: Batch) -> None:
    try:
        held(towards(training(bridge, [train]), kinds), batch)
    finally:
        training(bridge, ["connectors.*"])


@pytest.mark.usefixtures("fixed")
@pytest.mark.parametrize("kind", ["divergence", "token_transport"])
def test_looks_are_held_against_words(kind: str, parts: Path) -> None:
    """A set of tokens for each look, though two are at one medium; a sample is held against its own."""
    made = training(Bridge(recipe(parts, (kind,), resampler={"text": TEXT | {"instruction": True}})), ["connectors.*"])
    red = picture("red")
    alike, apart = (
        made.collate()(samples((red, "What is it?"), (red, question))) for question in ("What is it?", "Is it blue?")
    )
    objectives = WeightedObjectives(made, made.recipe.stages[0].objectives)
    assert held(objectives, alike)[0] < held(objectives, apart)[0]
