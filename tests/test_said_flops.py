"""What the LLM makes of texts alone, and media held against its words: torch's count against the formulas.

What is executed and not needed is written down by reason, from the sizes of the tiny models: needed and that must add
up to what torch counts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mmbridge.bridge import Bridge
from mmbridge.data.batch import Batch
from mmbridge.evaluation.flops import executed_flops
from mmbridge.flops import StepFlops
from mmbridge.llm.text_states import opening
from mmbridge.objectives.weighted import WeightedObjectives
from mmbridge.ranks import ALONE, Ranks, together
from mmbridge.trainable import unfreeze
from tests import processes
from tests.objectives.test_pairs import samples
from tests.test_pair_flops import counted, held
from tests.tiny import FAMILIES, tiny_clip, tiny_llm
from tests.tiny_bridge import tiny_data, tiny_recipe, tiny_stage
from tests.tiny_step import FEED, GROUPS, HEADS, WIDTH

WORDS: dict[str, Any] = {"kind": "assignment", "marginal": "uniform"}
RELEASED = {"plan": "released", "marginal": "softened"}
LORA = {"lora": {"rank": 2, "alpha": 4}}
KEYS, OTHERS = 2 * WIDTH * GROUPS, 2 * WIDTH * HEADS + 3 * WIDTH * FEED
"""Multiply-adds a position in a block of the tiny Llama: of keys and values, and of all else."""


def parts_of(folder: Path, family: str = "llama", **llm: Any) -> Path:
    if not folder.exists():
        tiny_clip(folder / "clip")
        tiny_llm(folder / "llm", family, **llm)
        tiny_data(folder / "data")
    return folder


def bridge_of(
    parts: Path,
    *objectives: dict[str, Any],
    train: Sequence[str] = ("connectors.*",),
    image: dict[str, Any] | None = None,
    **llm: Any,
) -> Bridge:
    stage = tiny_stage(objectives=[*objectives], train=[*train])
    encoder = {"kind": "transformers", "path": str(parts / "clip")} | (image or {})
    bridge = Bridge(tiny_recipe(parts, stage, llm={"path": str(parts / "llm")} | llm, encoders={"image": encoder}))
    unfreeze(bridge, bridge.recipe.stages[0], "stages.align", parts=["connectors.", "llm."])
    return bridge.train()


def towards(bridge: Bridge, ranks: Ranks = ALONE) -> WeightedObjectives:
    """With words counted, where they have to be."""
    objectives = WeightedObjectives(bridge, bridge.recipe.stages[0].objectives, ranks=ranks)
    for each in objectives.counting:
        each.count(torch.full((bridge.llm.vocabulary,), 1 / bridge.llm.vocabulary))
    return objectives


def lengths_of(batch: Batch) -> list[int]:
    return [sum(prompt.supervised) for prompt, media in zip(batch.prompts, batch.media, strict=True) if media]


def surplus(lengths: Sequence[int], first: int) -> dict[str, int]:
    """Of a tiny Llama of two blocks that reads texts behind an opening of ``first`` tokens."""
    count, longest = len(lengths), first + max(lengths)
    padding = count * longest - sum(first + each for each in lengths)
    pairs = count * longest**2 - sum((first + each) * (first + each + 1) // 2 for each in lengths)
    silent = first * count
    return {
        "padding": 2 * 2 * (KEYS + OTHERS) * padding,
        "padding, and pairs the mask forbids": 2 * 2 * 2 * HEADS * pairs,
        "openings in the last block": 2 * (OTHERS * silent + 2 * HEADS * silent),
    }


def test_needed_and_what_nobody_needs(tmp_path: Path) -> None:
    """Six texts of unequal length, none of which needs its opening in the last block, or the head anywhere."""
    bridge = bridge_of(parts_of(tmp_path / "parts"), WORDS)
    objectives, batch = towards(bridge), bridge.collate()(samples())
    assert len({*lengths_of(batch)}) > 2
    assert len(opening(bridge.llm)) == 1
    needed, executed = held(objectives, batch)
    named = surplus(lengths_of(batch), 1)
    assert executed - needed == sum(named.values())
    assert min(named.values()) > 0
    flops = StepFlops(objectives)
    words = 2 * 6 * bridge.llm.vocabulary * WIDTH * 3
    assert needed - flops.encoders(batch) - flops.connectors(batch) - words == executed_flops_of_texts(bridge, batch)


def executed_flops_of_texts(bridge: Bridge, batch: Batch) -> int:
    """What torch counts of one text at a time, but for masked pairs and the opening in the last block."""
    total = 0
    for length in lengths_of(batch):
        ids = torch.zeros(1, 1 + length, dtype=torch.long)
        with torch.no_grad():
            total += executed_flops(lambda ids=ids: bridge.llm.model.model(ids, use_cache=False))  # type: ignore[misc]
        total -= sum(surplus([length], 1).values())
    return total


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str, tmp_path: Path) -> None:
    """Among them widths that differ from the embeddings', one matrix for queries, keys and values, and windows."""
    bridge = bridge_of(parts_of(tmp_path / "parts", family), WORDS)
    held(towards(bridge), bridge.collate()(samples()))


@pytest.mark.parametrize(
    "llm", [{"tokenizer": {"style": "bytes"}}, {"family": "qwen2", "tokenizer": {"style": "bytes", "template": None}}]
)
def test_texts_without_an_opening(llm: dict[str, Any], tmp_path: Path) -> None:
    bridge = bridge_of(parts_of(tmp_path / "parts", **llm), WORDS, template="plain")
    assert opening(bridge.llm) == ()
    batch = bridge.collate()(samples())
    needed, executed = held(towards(bridge), batch)
    if "family" not in llm:
        assert executed - needed == sum(surplus(lengths_of(batch), 0).values())


@pytest.mark.parametrize("train", [["connectors.*"], ["connectors.*", "llm.*lora*"], ["llm.*lora*"], []], ids=str)
def test_with_lora_and_what_is_frozen(train: list[str], tmp_path: Path) -> None:
    """Adapters are read, and have no gradient of texts."""
    bridge = bridge_of(parts_of(tmp_path / "parts"), WORDS, train=train or ["connectors.*"], **LORA)
    if not train:
        bridge.requires_grad_(False)
    held(towards(bridge), bridge.collate()(samples()))


@pytest.mark.parametrize("objectives", [[WORDS | RELEASED], [{"kind": "next_token"}, WORDS]], ids=["released", "both"])
def test_beside_others(objectives: list[dict[str, Any]], tmp_path: Path) -> None:
    bridge = bridge_of(parts_of(tmp_path / "parts"), *objectives)
    batch = bridge.collate()(samples())
    needed, executed = held(towards(bridge), batch)
    texts = surplus(lengths_of(batch), 1)
    assert executed - needed >= sum(texts.values())


def test_nothing_to_see(tmp_path: Path) -> None:
    """Modules run on nothing where samples have no media; no step needs it."""
    bridge = bridge_of(parts_of(tmp_path / "parts"), WORDS)
    objectives = towards(bridge)
    alone = bridge.collate()([each for each in samples() if not each.media])
    needed, executed = held(objectives, alone)
    assert needed == 0 < executed
    assert StepFlops(objectives)(Batch((), {}, ())) == (0, 0)


def test_to_a_tolerance_iterations_are_not_counted(tmp_path: Path) -> None:
    bridge = bridge_of(parts_of(tmp_path / "parts"), WORDS | {"iterations": None, "epsilon": 0.5})
    objectives, batch = towards(bridge), bridge.collate()(samples())
    assert counted(objectives, batch) > StepFlops(objectives).executed(batch)


def apart(folder: str) -> list[list[Any]]:
    """What formulas and torch count in each of two processes: with unequal shares, and in one that sees nothing."""
    names, figures = list[str](), list[list[int]]()
    with together() as ranks:
        for changes in ({}, RELEASED):
            bridge = bridge_of(Path(folder), WORDS | changes)
            alone = [each for each in samples() if not each.media]
            for shares in ((samples((0, 1, 2)), samples((3, 3))), (samples(), alone), (alone, alone)):
                batch, objectives = bridge.collate()(shares[ranks.rank]), towards(bridge, ranks)
                names.append(f"{changes} of {len(shares[0])} and {len(shares[1])}")
                figures.append([*StepFlops(objectives)(batch), counted(objectives, batch)])
        return [names, *(each.tolist() for each in ranks.gather(torch.tensor(figures)))]


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    """Each assigns all samples; by itself in the plan of the released code."""
    names, *found = processes.together(apart, str(parts_of(tmp_path / "parts")), folder=tmp_path / "two")
    for figures in found:
        for name, (needed, executed, torchs) in zip(names, figures, strict=True):
            assert needed <= executed == torchs > 0, name
