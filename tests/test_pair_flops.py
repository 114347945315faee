"""Stages trained by contrast, matching and grounded generation: torch's count against the formulas, to the last FLOP.

What is executed and not needed is written down by reason, from the sizes of a tiny Q-Former: needed and that must add
up to what torch counts.
"""

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch

from mmbridge.bridge import Bridge
from mmbridge.data.batch import Batch
from mmbridge.data.sample import Sample, conversation
from mmbridge.evaluation.flops import executed_flops
from mmbridge.flops import StepFlops
from mmbridge.objectives.weighted import WeightedObjectives
from mmbridge.ranks import ALONE, Ranks, together
from tests import processes
from tests.objectives.test_pairs import THREE, picture, recipe, samples

M, W, BLOCKS, HIDDEN, SHARED, LLM = 5, 32, 4, 48, 8, 32
ASKING = 2 * W * W + 2 * W * HIDDEN
"""Multiply-adds of a place in a block's matrices that are no keys or values."""
PLACE, PAIR = ASKING + 2 * W * W, 2 * W
EVERYTHING = ("connectors.*",)


def bridge_of(parts: Path, train: Sequence[str] = EVERYTHING, **changes: Any) -> Bridge:
    return training(Bridge(recipe(parts, ("next_token", *THREE), **changes)), train)


def training(bridge: Bridge, train: Sequence[str]) -> Bridge:
    for name, each in bridge.named_parameters():
        each.requires_grad_(any(fnmatch(name, pattern) for pattern in train))
    return bridge.train()


@pytest.fixture(scope="module")
def bridge(parts: Path) -> Bridge:
    return bridge_of(parts)


def towards(bridge: Bridge, kinds: Sequence[str], ranks: Ranks = ALONE) -> WeightedObjectives:
    chosen = [each for each in bridge.recipe.stages[0].objectives if each.kind in kinds]
    return WeightedObjectives(bridge, chosen, ranks=ranks)


def counted(objectives: WeightedObjectives, batch: Batch) -> int:
    def work() -> None:
        losses = objectives(batch, objectives.terms([batch]))
        if losses.requires_grad:
            losses.sum().backward()

    return executed_flops(work)


def held(objectives: WeightedObjectives, batch: Batch) -> tuple[int, int]:
    """Needed, and executed, which is what torch counts."""
    needed, executed = StepFlops(objectives)(batch)
    assert counted(objectives, batch) == executed
    assert needed <= executed
    return needed, executed


def surplus(lengths: Sequence[int], media: int, *, drawing: bool = True) -> dict[str, dict[str, int]]:
    """By objective, what is executed for it and not needed, where all of the Q-Former trains.

    With ``itc`` everything goes forward and backward; matching alone makes text and similarities forward alone.
    """
    count, longest, total = len(lengths), max(lengths), sum(lengths)
    padding, squares = count * longest - total, sum(each**2 for each in lengths)
    beside, wide = sum((M + each) ** 2 for each in lengths), count * (M + longest) ** 2
    seen = sum(each * (M + each) for each in lengths)
    asked = sum(M + reads for each in lengths for reads in range(1, each))
    contrast = {
        "padding": BLOCKS * (PLACE * padding + PAIR * (count * longest**2 - squares)),
        "text of which the first token is read": ASKING * (total - count) + PAIR * (squares - total),
        "similarities that are others turned, or of one medium": (2 * count - media) * count * M * SHARED,
    }
    matching = {
        "padding": 3 * BLOCKS * (PLACE * padding + PAIR * (wide - beside)),
        "text that the judge does not read": 3 * (ASKING * total + PAIR * seen),
    }
    generation = {
        "padding": BLOCKS * (PLACE * padding + PAIR * (count * longest * (M + longest) - seen)),
        "pairs the mask forbids, and last tokens": BLOCKS * (PLACE * count + PAIR * (seen - asked)),
    }
    alone = {"queries that nobody reads": media * (ASKING * M + PAIR * M * M)}
    found = {
        "itc": {name: 6 * size for name, size in contrast.items()},
        "itm": {name: 6 * size for name, size in matching.items()},
        "itg": {name: 6 * size for name, size in generation.items()},
    }
    found["itm alone"] = found["itm"] | {f"for draws: {name}": 2 * size for name, size in contrast.items()}
    found["itg alone"] = found["itg"] | {name: 2 * size for name, size in alone.items()}
    return found


def lengths_of(batch: Batch) -> list[int]:
    return [len(ids) for ids, media in zip(batch.texts["image"], batch.media, strict=True) if media]


@pytest.mark.parametrize(
    ("kinds", "reasons"),
    [
        (("itc",), ["itc"]),
        (("itm",), ["itm alone"]),
        (("itg",), ["itg alone"]),
        (("itc", "itm"), ["itc", "itm"]),
        (THREE, [*THREE]),
    ],
)
def test_needed_and_what_nobody_needs(kinds: tuple[str, ...], reasons: list[str], bridge: Bridge) -> None:
    """Six texts of unequal length about five media; a sample without any stands among them."""
    batch = bridge.collate()(samples())
    assert len(set(lengths_of(batch))) > 2
    needed, executed = held(towards(bridge, kinds), batch)
    named = surplus(lengths_of(batch), media=5)
    total = sum(sum(named[reason].values()) for reason in reasons)
    assert executed - needed == total > 0


def test_the_llm_counts_where_it_runs(bridge: Bridge) -> None:
    """The encoder is shared; of the connector the pass over queries is needed once, and executed twice."""
    batch = bridge.collate()(samples())
    pairs, words, both = (towards(bridge, kinds) for kinds in (THREE, ("next_token",), ("next_token", *THREE)))
    (_, alone), (_, answering), (needed, executed) = (held(each, batch) for each in (pairs, words, both))
    encoders = StepFlops(pairs).encoders(batch)
    assert executed == alone + answering - encoders
    assert StepFlops(pairs).llm(batch) == 0 < StepFlops(both).llm(batch) == StepFlops(words).llm(batch)
    projected = 6 * 5 * M * W * LLM
    assert StepFlops(both).connectors(batch) == StepFlops(pairs).connectors(batch) + projected
    assert needed == StepFlops(both).connectors(batch) + encoders + StepFlops(words).llm(batch)


HEADS, BRANCH = "connectors.image.resampler.heads", "connectors.image.resampler"


@pytest.mark.parametrize("kinds", [*((kind,) for kind in THREE), THREE, ("next_token", *THREE)], ids="+".join)
@pytest.mark.parametrize(
    "train",
    [
        "nothing",
        "connectors.image.projector.*",
        f"{HEADS}.*",
        f"{HEADS}.image.weight",
        f"{HEADS}.text.bias",
        f"{HEADS}.temperature",
        f"{HEADS}.match.bias",
        f"{HEADS}.transform.weight",
        f"{HEADS}.norm.bias",
        f"{HEADS}.bias",
        f"{BRANCH}.embeddings.queries",
        f"{BRANCH}.embeddings.words.*",
        f"{BRANCH}.embeddings.norm.*",
        f"{BRANCH}.blocks.0.cross.key.weight",
        f"{BRANCH}.blocks.1.attention.value.*",
        f"{BRANCH}.blocks.2.query_feed.up.bias",
        f"{BRANCH}.blocks.3.attention.key.weight",
        f"{BRANCH}.blocks.3.text_feed.*",
    ],
)
def test_frozen_parts(kinds: tuple[str, ...], train: str, bridge: Bridge) -> None:
    batch = bridge.collate()(samples((0, 1, 0)))
    try:
        held(towards(training(bridge, [train]), kinds), batch)
    finally:
        training(bridge, EVERYTHING)


@pytest.mark.parametrize(
    "changes", [{"normalise_features": True, "cross_every": 1, "dropout": 0.1}, {"cross_every": 3}]
)
def test_other_qformers(changes: dict[str, Any], parts: Path) -> None:
    """Among them one whose last block attends to features, which grounded generation alone does not read."""
    made = bridge_of(parts, resampler=changes)
    batch = made.collate()(samples())
    for kinds in [*((kind,) for kind in THREE), ("next_token", *THREE)]:
        held(towards(made, kinds), batch)


@pytest.mark.parametrize("kinds", [THREE, ("next_token", *THREE)], ids="+".join)
def test_a_medium_that_no_pair_shows(kinds: tuple[str, ...], bridge: Bridge) -> None:
    """The second of a sample's media is encoded and read by the queries, for nobody but the LLM."""
    red, blue = picture("red"), picture("blue")

    def batch(*shown: Any) -> Batch:
        said = [(shown, "a red square"), ((blue, "What?"), "a blue one, it seems")]
        return bridge.collate()(
            [
                Sample(str(n), conversation(("user", asked), ("assistant", (text,))))
                for n, (asked, text) in enumerate(said)
            ]
        )

    one, two = batch(red, "What is it?"), batch(red, picture("green"), "What is it?")
    objectives = towards(bridge, kinds)
    (needed, executed), (more, most) = held(objectives, one), held(objectives, two)
    assert most > executed
    assert (more > needed) == ("next_token" in kinds)


@pytest.mark.parametrize("kinds", [THREE, ("itm",)], ids="+".join)
def test_one_medium_has_no_negatives(kinds: tuple[str, ...], bridge: Bridge) -> None:
    objectives, alone, two = towards(bridge, kinds), samples((0, 0)), samples((0, 1))
    needed, _ = held(objectives, bridge.collate()(alone))
    assert needed < held(objectives, bridge.collate()(two))[0] / 1.5


@pytest.mark.parametrize("kinds", [*((kind,) for kind in THREE), THREE, ("next_token", *THREE)], ids="+".join)
def test_nothing_to_see(kinds: tuple[str, ...], bridge: Bridge) -> None:
    """Modules run on a pair of nothing where samples have none; no step needs it."""
    objectives = towards(bridge, kinds)
    alone = bridge.collate()([each for each in samples() if not each.media])
    assert held(objectives, alone)[0] == StepFlops(objectives).llm(alone)
    assert StepFlops(objectives)(Batch((), {}, ())) == (0, 0)


def apart(folder: str) -> list[list[Any]]:
    """What formulas and torch count in each of two processes: with unequal shares, and in one without any pair."""
    names, figures = list[str](), list[list[int]]()
    with together() as ranks:
        bridge = bridge_of(Path(folder))
        alone = [each for each in samples() if not each.media]
        for shares in ((samples((0, 1, 2)), samples((3, 3))), (samples(), alone), (alone, alone)):
            batch = bridge.collate()(shares[ranks.rank])
            for kinds in (*((kind,) for kind in THREE), THREE):
                objectives = towards(bridge, kinds, ranks)
                names.append(f"{kinds} of {len(shares[0])} and {len(shares[1])}")
                figures.append([*StepFlops(objectives)(batch), counted(objectives, batch)])
        names.append("no sample")
        objectives = towards(bridge, THREE, ranks)
        figures.append([*StepFlops(objectives)(Batch((), {}, ())), counted(objectives, bridge.nothing())])
        return [names, *(each.tolist() for each in ranks.gather(torch.tensor(figures)))]


@pytest.mark.slow
def test_two_processes(parts: Path, tmp_path: Path) -> None:
    """Each projects the media that it draws, texts are as long as may be, and all pairs are compared."""
    names, *found = processes.together(apart, str(parts), folder=tmp_path)
    assert len(found) == 2
    for figures in found:
        for name, (needed, executed, torchs) in zip(names, figures, strict=True):
            assert needed <= executed == torchs > 0, name
