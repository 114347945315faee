"""Transport between tokens and words: torch's count against the formulas, and what is executed and not needed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from mmbridge.data.batch import Batch
from mmbridge.data.sample import Medium, Sample, conversation
from mmbridge.evaluation.flops import executed_flops
from mmbridge.flops import StepFlops
from mmbridge.ranks import together
from mmbridge.transport import divergence
from mmbridge.transport.plan import Transport
from mmbridge.transport.sinkhorn import sinkhorn
from tests import processes
from tests.objectives.test_divergence import also_two
from tests.objectives.test_pairs import samples
from tests.test_pair_flops import counted, held
from tests.test_said_flops import bridge_of, lengths_of, parts_of, towards
from tests.tiny_step import TOKENS, WIDTH

CARRIED: dict[str, Any] = {"kind": "token_transport"}
CONTRAST = CARRIED | {"contrast": True}
GAP: dict[str, Any] = {"kind": "divergence"}
PAIRS = GAP | {"of": "pair"}
KINDS = {"carried": CARRIED, "contrast": CONTRAST, "gap": GAP, "pairs": PAIRS}
M = TOKENS
MEDIA = 5


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans of so many iterations in the log domain, which has no products of matrices."""

    def unrolled(cost: Tensor, epsilon: float, rows: Tensor, columns: Tensor, tolerance: float) -> Transport:
        return sinkhorn(cost, epsilon, rows, columns, iterations=5)

    monkeypatch.setattr(divergence, "sinkhorn", unrolled)


def surplus(lengths: Sequence[int]) -> dict[str, dict[str, int]]:
    """By objective, over five media of M tokens each, shown by six samples, where tokens learn."""
    count, longest, size = len(lengths), max(lengths), 2 * WIDTH
    padding = count * longest - sum(lengths)
    own, turned = count * longest**2 - sum(each**2 for each in lengths), "tokens among themselves, from the other side"
    return {
        "carried": {"padding": size * 2 * M * padding},
        "contrast": {"padding": size * 2 * 2 * M * padding},
        "pairs": {"padding": size * (2 * M * padding + own), turned: size * count * M**2},
        "gap": {turned: size * (MEDIA * M) ** 2},
    }


@pytest.mark.usefixtures("fixed")
@pytest.mark.parametrize("name", KINDS)
def test_needed_and_what_nobody_needs(name: str, tmp_path: Path) -> None:
    bridge = bridge_of(parts_of(tmp_path / "parts"), KINDS[name])
    objectives, batch = towards(bridge), bridge.collate()(samples())
    assert len({*lengths_of(batch)}) > 2
    needed, executed = held(objectives, batch)
    assert executed - needed == sum(surplus(lengths_of(batch))[name].values()) > 0
    flops = StepFlops(objectives)
    assert needed == flops.encoders(batch) + flops.connectors(batch) + by_hand(name, batch)


def by_hand(name: str, batch: Batch) -> int:
    """What is needed of the costs, forward and backward, sample by sample."""
    lengths = lengths_of(batch)
    said = {
        token
        for prompt, media in zip(batch.prompts, batch.media, strict=True)
        for token, asked in zip(prompt.ids, prompt.supervised, strict=True)
        if media and asked
    }
    tokens, words = MEDIA * M, len(said)
    products = {
        "carried": sum(2 * M * each for each in lengths),
        "contrast": sum(4 * M * each for each in lengths),
        "pairs": sum(2 * M * each + 2 * M * M + each * each for each in lengths),
        "gap": 2 * tokens * words + 2 * tokens * tokens + words * words,
    }
    return 2 * WIDTH * products[name]


@pytest.mark.usefixtures("fixed")
@pytest.mark.parametrize("name", KINDS)
def test_frozen_and_nothing_to_see(name: str, tmp_path: Path) -> None:
    """Nothing goes backward where nothing trains; where samples have no media, connectors run on nothing."""
    bridge = bridge_of(parts_of(tmp_path / "parts"), KINDS[name])
    objectives = towards(bridge)
    alone = bridge.collate()([each for each in samples() if not each.media])
    needed, executed = held(objectives, alone)
    assert needed == 0 < executed
    assert StepFlops(objectives)(Batch((), {}, ())) == (0, 0)
    batch = bridge.collate()(samples((0, 0)))
    learning = held(objectives, batch)[0]
    bridge.requires_grad_(False)
    assert held(objectives, batch)[0] < learning


@pytest.mark.usefixtures("fixed")
def test_one_medium_has_no_others(tmp_path: Path) -> None:
    bridge = bridge_of(parts_of(tmp_path / "parts"), CONTRAST)
    objectives, plain = towards(bridge), towards(bridge_of(tmp_path / "parts", CARRIED))
    batch = bridge.collate()(samples((0, 0)))
    assert held(objectives, batch)[0] == held(plain, batch)[0]
    (one,) = [each for each in also_two() if each.id == "two 0"]
    batch = bridge.collate()([one])
    assert len(batch.media[0]) == 2
    assert held(objectives, batch)[0] == held(plain, batch)[0]


@pytest.mark.usefixtures("fixed")
@pytest.mark.parametrize("name", KINDS)
def test_several_media_and_other_objectives(name: str, tmp_path: Path) -> None:
    """The second medium of a sample stands among all of a batch, and nowhere else."""
    bridge = bridge_of(parts_of(tmp_path / "parts"), KINDS[name], {"kind": "next_token"})
    held(towards(bridge), bridge.collate()(also_two()))


@pytest.mark.usefixtures("fixed")
@pytest.mark.parametrize("name", KINDS)
def test_media_of_unequal_length(name: str, tmp_path: Path) -> None:
    """Cut into two tiles or four: what is padded of tokens is executed, and not needed."""
    tiles = {"aspect": "tiles", "pinpoints": [[32, 64], [64, 64]]}
    bridge = bridge_of(parts_of(tmp_path / "parts"), KINDS[name], image=tiles)
    shown = [Medium("image", Image.new("RGB", size, "red"), name) for name, size in (("a", (64, 32)), ("b", (64, 64)))]
    batch = bridge.collate()(
        [Sample(each.name, conversation(("user", (each, "?")), ("assistant", ("it is red",)))) for each in shown]
    )
    (first,), (second,) = bridge.perceptual_tokens(batch)
    assert first < second
    needed, executed = held(towards(bridge), batch)
    lengths, size = lengths_of(batch), 2 * WIDTH
    padding = {
        "carried": 2 * (second - first) * lengths[0],
        "contrast": 4 * (second - first) * lengths[0],
        "gap": (first + second) ** 2,
        "pairs": 2 * (second - first) * lengths[0] + 4 * second**2 - 2 * first**2,  # 3 of the longer, 2 of each
    }
    assert len({*lengths}) == 1
    assert executed - needed == size * padding[name]


@pytest.mark.parametrize("name", ["gap", "pairs"])
def test_iterations_to_a_tolerance_are_all_that_is_left_out(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list[int]()

    def told(*given: Any, **named: Any) -> Transport:
        found.append(executed_flops(lambda: sinkhorn(*given, **named)))
        return sinkhorn(*given, **named)

    bridge = bridge_of(parts_of(tmp_path / "parts"), KINDS[name])
    objectives, batch = towards(bridge), bridge.collate()(samples())
    whole = counted(objectives, batch)
    monkeypatch.setattr(divergence, "sinkhorn", told)
    losses = objectives(batch, objectives.terms([batch]))
    assert losses.isfinite().all()
    assert len(found) == 3
    assert whole == StepFlops(objectives).executed(batch) + sum(found)


def apart(folder: str) -> list[list[Any]]:
    """What formulas and torch count in each of two processes, and needed in one that has all."""
    names, figures = list[str](), list[list[int]]()
    with together() as ranks, pytest.MonkeyPatch.context() as patched:
        fixed.__wrapped__(patched)  # type: ignore[attr-defined]
        for name, kind in KINDS.items():
            bridge = bridge_of(Path(folder), kind)
            alone = [each for each in samples() if not each.media]
            for shares in ((samples((0, 1, 2)), samples((3, 3))), (alone, samples()), (alone, alone)):
                batch, objectives = bridge.collate()(shares[ranks.rank]), towards(bridge, ranks)
                names.append(f"{name} of {len(shares[0])} and {len(shares[1])}")
                figures.append([*StepFlops(objectives)(batch), counted(objectives, batch)])
        return [names, *(each.tolist() for each in ranks.gather(torch.tensor(figures)))]


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    """Needed of both together is what one process needs, but for media that only one of them shows."""
    parts = parts_of(tmp_path / "parts")
    names, *found = processes.together(apart, str(parts), folder=tmp_path / "two")
    for figures in found:
        for name, (needed, executed, torchs) in zip(names, figures, strict=True):
            assert needed <= executed == torchs > 0, name
    halves = dict(zip(names, zip(*found, strict=True), strict=True))
    with pytest.MonkeyPatch.context() as patched:
        fixed.__wrapped__(patched)  # type: ignore[attr-defined]
        for name, kind in KINDS.items():
            bridge = bridge_of(parts, kind)
            objectives = towards(bridge)
            both: list[Sample] = [each for each in samples((0, 1, 2)) if each.media]
            whole = StepFlops(objectives).needed(bridge.collate()([*both, *samples((3, 3))[:2]]))
            (first, *_), (second, *_) = halves[f"{name} of 4 and 3"]
            assert first + second == whole
