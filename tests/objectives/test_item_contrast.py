"""Item–item contrast: against loops, over several processes, and in FLOPs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmbridge.bridge import Bridge
from mmbridge.data.batch import Batch
from mmbridge.data.sample import Medium, Sample, conversation
from mmbridge.flops import StepFlops
from mmbridge.objectives.item_pairs import nearest
from mmbridge.objectives.weighted import WeightedObjectives
from mmbridge.ranks import ALONE, Ranks, together
from mmbridge.recipe import Recipe
from tests import processes
from tests.objectives.item_loops import item_contrast
from tests.objectives.test_pairs import QFORMER
from tests.test_pair_flops import counted
from tests.tiny_bridge import tiny_recipe, tiny_stage

WIDTH = 6
ITEMS = np.random.default_rng(3).normal(size=(9, WIDTH)).astype(np.float32)
PAIRS = [(0, 1), (2, 3), (0, 4), (5, 1), (1, 6), (7, 8)]
"""The first and the third have one item first; the first and the fourth one second; the fifth begins with that one."""
FOUR = ("itc", "itm", "itg", "item_contrast")


def recipe(parts: Path, objectives: Sequence[str] = FOUR, **changes: Any) -> Recipe:
    connector = {
        "medium": "vector", "encoders": ["item"], "resampler": QFORMER | changes, "projector": {"kind": "linear"},
    }  # fmt: skip
    stage = tiny_stage(objectives=[{"kind": kind} for kind in objectives])
    return tiny_recipe(
        parts, stage, encoders={"item": {"kind": "vectors", "width": WIDTH}}, connectors={"item": connector}
    )


def samples(pairs: Sequence[tuple[int, ...]] = PAIRS) -> list[Sample]:
    """Each item an array of its own, so that only what is in them says which are one; last one without any."""
    found = []
    for number, pair in enumerate(pairs):
        shown = [Medium("vector", ITEMS[item].copy(), f"item {item}") for item in pair]
        said = "a red square" + " and more" * (number % 3)
        found.append(Sample(str(number), conversation(("user", (*shown, "What is it?")), ("assistant", (said,)))))
    return [*found, Sample("alone", conversation(("user", ("Say yes.",)), ("assistant", ("Yes.",))))]


@pytest.fixture(scope="module")
def bridge(parts: Path) -> Bridge:
    return built(recipe(parts))


def built(asked: Recipe) -> Bridge:
    made = Bridge(asked)
    for each in made.parameters():
        each.requires_grad_(False)
    for each in made.connectors.parameters():
        each.requires_grad_(True)
    heads: Any = made.connectors["item"].get_submodule("resampler.heads")
    with torch.no_grad():
        heads.temperature.fill_(0.4)
        for each in made.connectors.parameters():  # queries that differ more than as drawn
            if each.ndim == 2:
                each.mul_(5)
    return made


def objectives(bridge: Bridge, *kinds: str, ranks: Ranks = ALONE) -> WeightedObjectives:
    chosen = [each for each in bridge.recipe.stages[0].objectives if each.kind in kinds]
    return WeightedObjectives(bridge, chosen, ranks=ranks)


def gradients(bridge: Bridge) -> dict[str, Tensor]:
    named = bridge.connectors.named_parameters()
    return {name: each.grad.clone() for name, each in named if each.grad is not None}


def loops(bridge: Bridge, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Over what the Q-Former's queries find in each item, one at a time."""
    resampler: Any = bridge.connectors["item"].get_submodule("resampler")
    queries = []
    for item in ITEMS:
        values = torch.from_numpy(item)[None, None]
        found = resampler.read("queries", resampler.image(values, torch.ones(1, 1, dtype=torch.bool))).queries[0]
        queries.append(found @ resampler.heads.image.weight.T + resampler.heads.image.bias)
    return item_contrast(queries, pairs, resampler.heads.temperature[0])


@pytest.mark.proof("item_contrast", against="the loss in loops over single queries of single items, with gradients")
@pytest.mark.parametrize("beside", [(), ("itc", "itg")])
def test_the_loss_is_that_of_loops(beside: tuple[str, ...], bridge: Bridge) -> None:
    module, batch = objectives(bridge, *beside, "item_contrast"), bridge.collate()(samples())
    assert module.terms([batch])[-1] == len(PAIRS)
    bridge.zero_grad()
    losses = module(batch, [1] * (len(beside) + 1))
    torch.autograd.backward(losses[-1])
    own = gradients(bridge)
    bridge.zero_grad()
    expected = loops(bridge, PAIRS)
    torch.autograd.backward(expected)
    assert float(expected) > 1
    assert_close(losses[-1], expected, rtol=1e-5, atol=1e-6)
    theirs = gradients(bridge)
    assert len(theirs) > 50
    for name, gradient in theirs.items():
        assert_close(own[name], gradient, rtol=1e-4, atol=1e-5, msg=name)
    assert float(own["item.resampler.heads.temperature"].abs()) > 1e-3


def test_the_nearest_queries_count() -> None:
    firsts, seconds = torch.randn(3, 4, 5), torch.randn(2, 4, 5)
    found = np.einsum("smc,anc->sman", firsts.numpy(), seconds.numpy()).max(axis=(1, 3))
    np.testing.assert_allclose(nearest(firsts, seconds).numpy(), found, rtol=1e-5)


def test_an_item_is_no_negative_of_itself(bridge: Bridge) -> None:
    """Of two pairs of one item each way nothing is left to tell apart."""
    module = objectives(bridge, "item_contrast")
    batch = bridge.collate()(samples([(0, 1), (1, 0)]))
    assert module(batch, [1]).tolist() == [pytest.approx(0, abs=1e-6)]


def test_a_single_item_and_one_beside_itself_are_no_pairs(bridge: Bridge) -> None:
    same = Medium("vector", ITEMS[3])
    twice = Sample("twice", conversation(("user", (same, same, "?")), ("assistant", ("a square",))))
    module, batch = objectives(bridge, "item_contrast"), bridge.collate()([*samples([(2,)]), twice])
    assert module.terms([batch]) == (0,)
    losses = module(batch, [1])
    torch.autograd.backward(losses.sum())
    assert losses.tolist() == [0]


# --- several processes ---

Pairs = Sequence[tuple[int, ...]]
SHARES: tuple[tuple[Pairs, Pairs], ...] = (
    (PAIRS[:4], PAIRS[4:]),
    (PAIRS, []),
    (PAIRS[:1], PAIRS[1:]),
)


def shares(folder: str) -> dict[str, Any]:
    """Losses and gradients of unequal shares, of which one process may have none."""
    found: dict[str, Any] = {}
    with together() as ranks:
        made = built(recipe(Path(folder)))
        module = objectives(made, "item_contrast", ranks=ranks)
        for number, share in enumerate(SHARES):
            batch = made.collate()(samples(share[ranks.rank]))
            made.zero_grad()
            losses = module(batch, [1])
            flops = [*StepFlops(module)(batch), counted(module, batch)]
            made.zero_grad()
            losses = module(batch, [1])
            torch.autograd.backward(losses.sum())
            named = [(name, each) for name, each in made.connectors.named_parameters() if each.grad is not None]
            for _, each in named:
                assert each.grad is not None
                ranks.sum_([each.grad])
            found[str(number)] = {
                "loss": ranks.total(losses.tolist()),
                "gradients": {name: each.grad.tolist() for name, each in named if each.grad is not None},
                "flops": [each.tolist() for each in ranks.gather(torch.tensor(flops))],
            }
    return found


@pytest.mark.slow
def test_two_processes_are_one_with_all_pairs(bridge: Bridge, parts: Path, tmp_path: Path) -> None:
    """The same items stand in both, and are known to be the same."""
    found: Any = processes.together(shares, str(parts), folder=tmp_path)
    module, batch = objectives(bridge, "item_contrast"), bridge.collate()(samples())
    bridge.zero_grad()
    losses = module(batch, [1])
    torch.autograd.backward(losses.sum())
    expected = gradients(bridge)
    for share in found.values():
        assert share["loss"] == [pytest.approx(float(losses), rel=1e-5)]
        moved = {name: each for name, each in expected.items() if float(each.abs().max()) > 0}
        assert len(moved) > 50
        for name, gradient in moved.items():
            assert_close(torch.tensor(share["gradients"][name]), gradient, rtol=1e-4, atol=1e-5, msg=name)
        for needed, executed, torchs in share["flops"]:
            assert needed <= executed == torchs > 0


# --- FLOPs ---

M, C, W = 5, 8, 32


def held(module: WeightedObjectives, batch: Batch) -> tuple[int, int]:
    needed, executed = StepFlops(module)(batch)
    assert counted(module, batch) == executed
    assert needed <= executed
    return needed, executed


def test_what_is_executed_and_not_needed(bridge: Bridge) -> None:
    """The second product, and of the first what repeats the first pair's row, as its item begins two pairs."""
    distinct = [(item,) for pair in PAIRS for item in pair]
    assert len({*distinct}) == 9
    again = {item: Medium("vector", ITEMS[item]) for item in range(9)}
    shown = [
        Sample(str(n), conversation(("user", (again[a], again[b], "?")), ("assistant", ("a square",))))
        for n, (a, b) in enumerate(PAIRS)
    ]
    needed, executed = held(objectives(bridge, "item_contrast"), bridge.collate()(shown))
    assert executed - needed == 3 * 2 * (2 * 6 - 5) * 6 * M * M * C


@pytest.mark.parametrize("kinds", [("item_contrast",), ("itc", "item_contrast"), ("itm", "item_contrast"), FOUR])
def test_flops_beside_others(kinds: tuple[str, ...], bridge: Bridge) -> None:
    """Also where some samples show one item, two, three, or none."""
    module = objectives(bridge, *kinds)
    for pairs in (PAIRS, [(0, 1), (2,), (3, 4, 5)], [(0,), (1,)], []):
        batch = bridge.collate()(samples(pairs))
        needed, _ = held(module, batch)
        if not any(len(pair) > 1 for pair in pairs) and kinds == ("item_contrast",):
            assert needed == 0


def test_the_second_item_is_needed_for_itself_alone(bridge: Bridge) -> None:
    """Contrast with texts alone does not need it; beside item contrast it does, once."""
    batch, alone = bridge.collate()(samples([(0, 1), (2, 3)])), bridge.collate()(samples([(0,), (2,)]))
    (with_second, _), (without, _) = (held(objectives(bridge, "itc"), each) for each in (batch, alone))
    assert with_second == without
    (both, _), (items, _) = (held(objectives(bridge, *kinds), batch) for kinds in (("itc", "item_contrast"), FOUR[3:]))
    assert without < both < without + items


@pytest.mark.parametrize("train", ["heads.temperature", "heads.image.weight", "embeddings.queries", "nothing"])
def test_flops_of_frozen_parts(train: str, bridge: Bridge) -> None:
    batch, module = bridge.collate()(samples()), objectives(bridge, "item_contrast")
    try:
        for name, each in bridge.connectors.named_parameters():
            each.requires_grad_(name == f"item.resampler.{train}")
        held(module, batch)
    finally:
        bridge.connectors.requires_grad_(True)
