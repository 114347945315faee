"""A training step counted by torch against the formula of what it needs: no clock is asked.

torch counts products of whole matrices. Under the math backend a call of attention counts as all pairs of its queries
and keys, of which those that the mask allows are needed: fused kernels skip most others, but on a CPU torch counts
those kernels as nothing at all. Whatever else is executed and not needed is written down in ``surplus``, from the sizes
of the tiny models; needed and surplus must add up to what torch counts, to the last FLOP.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmbridge.data.batch import Batch
from mmbridge.evaluation.flops import executed_flops
from mmbridge.flops import StepFlops
from mmbridge.llm import packing
from mmbridge.llm.flops import Row
from mmbridge.llm.recomputing import Recompute
from mmbridge.llm.tree import Tree
from mmbridge.torch_engine import TorchEngine
from tests.connectors.qformers import SMALL
from tests.tiny_step import FEED, GROUPS, HEADS, LAYERS, QUESTION, TOKENS, WIDTH, batch_of, image, sample, started

OTHERS = 2 * WIDTH * HEADS + 3 * WIDTH * FEED
"""Multiply-adds a position in a layer's matrices that are no keys or values: in the last one, where it is asked."""
N = LAYERS * (2 * WIDTH * GROUPS + OTHERS)


def fewer_and_fewer(batch: Batch) -> Batch:
    """The same batch, with one supervised token less from each sample to the next."""
    prompts = []
    for number, prompt in enumerate(batch.prompts):
        begin = [index for index, asked in enumerate(prompt.supervised) if asked][number]
        supervised = tuple(asked and index >= begin for index, asked in enumerate(prompt.supervised))
        prompts.append(replace(prompt, supervised=supervised))
    return replace(batch, prompts=tuple(prompts))


def counted(engine: TorchEngine, batch: Batch) -> int:
    """One forward and backward pass, as the loop makes it."""
    terms = engine.terms([batch])
    return executed_flops(lambda: engine.backward(engine.losses(batch, terms)))


def surplus(trees: Sequence[Tree], rows: Sequence[Row], vocabulary: int, width: int | None) -> dict[str, int]:
    """What a frozen decoder executes and nobody needs, where each tree is computed whole, or padded to ``width``."""
    total = dict.fromkeys(("padding", "pairs the mask forbids", "backward with nothing trainable in front"), 0)
    product = 4 * HEADS  # two products of attention, a pair
    for tree, row in zip(trees, rows, strict=True):
        asked, length = row.predicting, tree.length
        keys = tree.constant + length
        if width is None:  # two calls of the kernel a tree, and one in the last layer
            own = sum(tree.own)
            whole, last = tree.shared * (tree.constant + tree.shared) + own * keys, len(asked) * keys
        else:
            whole, last = width**2, width**2
            total["padding"] += 4 * (N - OTHERS) * (width - length)
        every, some = (LAYERS - 1), row.reads[asked]
        total["pairs the mask forbids"] += 3 * product * (every * whole + last - every * row.reads.sum() - some.sum())
        idle, asking_idle = row.learns == 0, row.learns[asked] == 0
        unread = 2 * row.reads - row.learns - row.reads * ~idle
        total["backward with nothing trainable in front"] += (
            2 * (N - OTHERS) * idle.sum()
            + 2 * (OTHERS + vocabulary * WIDTH) * asking_idle.sum()
            + product * (every * unread.sum() + unread[asked].sum())
        )
    return {reason: int(flops) for reason, flops in total.items()}


def assert_exact(engine: TorchEngine, batch: Batch, width: int | None = None) -> dict[str, int]:
    """Holds what torch counts against the formulas, needed and surplus, and executed; returns the surplus."""
    bridge = engine.bridge
    flops, found = StepFlops(engine.objectives), bridge.forward(batch).context.trees
    if width is not None:
        assert not found
        found = tuple(Tree((n,), 0, len(row.reads), (0,)) for n, row in enumerate(flops.rows(batch)))
    total = surplus(found, flops.rows(batch), bridge.llm.model.config.vocab_size, width)
    executed = counted(engine, batch)
    assert executed == flops.needed(batch) + sum(total.values())
    assert executed == flops.executed(batch)
    return total


@pytest.fixture(autouse=True)
def _calls_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packing.CALL, "cpu", 0)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_samples_with_an_image_each(tmp_path: Path, family: str) -> None:
    """Live encoder, tapped before its last block; frozen LLM with grouped queries; 6, 5 and 4 supervised tokens."""
    engine = started(tmp_path, family)
    batch = fewer_and_fewer(batch_of(engine.bridge, *[sample(image(), QUESTION) for _ in range(3)]))
    assert sorted({sum(prompt.supervised) for prompt in batch.prompts}) == [4, 5, 6]
    assert_exact(engine, batch)
    flops, projector = StepFlops(engine.objectives), 2 * WIDTH * WIDTH
    assert flops.connectors(batch) == 3 * TOKENS * (2 * projector + 3 * projector)
    forward = executed_flops(lambda: engine.bridge.perceive(batch))
    assert forward == flops.encoders(batch) + 3 * TOKENS * 2 * projector


def test_a_qformer_reads_the_images(tmp_path: Path) -> None:
    """Its work is not a token's times their number (``test_connector_flops``); dropout changes nothing of it."""
    engine = started(tmp_path, resampler=SMALL | {"kind": "qformer", "text": None, "dropout": 0.1})
    batch, flops = batch_of(engine.bridge, *[sample(image(), QUESTION) for _ in range(3)]), StepFlops(engine.objectives)
    assert_exact(engine, batch)
    assert flops.connectors(batch) == 3 * flops.connectors(batch_of(engine.bridge, sample(image(), QUESTION))) > 0


def test_texts_alone_and_several_images(tmp_path: Path) -> None:
    engine = started(tmp_path)
    several = sample("Question: which is red?", image(), "or", image(), answer="both")
    batch = batch_of(engine.bridge, sample(image(), QUESTION), sample(QUESTION, answer="two"), several)
    found = assert_exact(engine, batch)
    assert found["padding"] == 0
    assert found["pairs the mask forbids"] > 0


@pytest.mark.parametrize("resampler", [None, SMALL | {"kind": "qformer", "text": None}])
def test_connectors_run_on_nothing_where_there_are_texts_alone(
    resampler: dict[str, Any] | None, tmp_path: Path
) -> None:
    """And have a gradient, of zeros, all the way back through the LLM; nobody needs it."""
    engine = started(tmp_path, resampler=resampler)
    batch = batch_of(engine.bridge, sample(QUESTION), sample(QUESTION, answer="two"))
    needed, executed = StepFlops(engine.objectives)(batch)
    assert counted(engine, batch) == executed > 2 * needed
    engine.bridge.requires_grad_(False)
    assert needed < counted(engine, batch) == StepFlops(engine.objectives).executed(batch) < executed


def test_padded_rows_cost_their_padding(tmp_path: Path) -> None:
    engine = started(tmp_path)
    engine.bridge.llm.packing = None
    batch = batch_of(engine.bridge, sample(image(), QUESTION), sample(image(), QUESTION * 3))
    width = engine.bridge.spliced(batch, "right").ids.shape[1]
    assert assert_exact(engine, batch, width)["padding"] > 0


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("padded", [False, True])
def test_blocks_that_go_forward_twice(padded: bool, family: str, tmp_path: Path) -> None:
    """All of a block but its last matrix, whose output nobody reads; what is selective makes no product again."""
    engine = started(tmp_path, family, layers=4)
    if padded:
        engine.bridge.llm.packing = None
    flops, one = StepFlops(engine.objectives), image()
    batch = batch_of(engine.bridge, sample(one, QUESTION), sample(one, QUESTION * 2), sample(image(), QUESTION))
    once, needed = counted(engine, batch), flops.needed(batch)
    formula = flops.executed(batch)
    for blocks in (1, 3):
        engine.bridge.llm.recompute = Recompute(blocks, selective=True)
        assert counted(engine, batch) - once == flops.executed(batch) - formula > 0
        assert flops.needed(batch) == needed
    engine.bridge.llm.recompute = Recompute(selective=True)
    assert counted(engine, batch) == once


def test_texts_about_one_image(tmp_path: Path) -> None:
    """The image, and what is asked about it, are needed and executed once."""
    engine = started(tmp_path)
    one, flops = image(), StepFlops(engine.objectives)
    answers = [sample(one, QUESTION, answer=answer) for answer in ("A red circle.", "A large square.", "Nothing.")]
    batch = batch_of(engine.bridge, *answers, sample(image(), QUESTION))
    found = assert_exact(engine, batch)
    apart = [batch_of(engine.bridge, each) for each in answers]
    assert flops.encoders(batch) == 2 * flops.encoders(apart[0])
    assert flops.connectors(batch) == 2 * flops.connectors(apart[0])
    together = flops.llm(batch_of(engine.bridge, *answers))
    assert together < 0.6 * sum(map(flops.llm, apart))
    assert found["backward with nothing trainable in front"] > 0


def test_what_is_constant_is_neither_needed_nor_executed(tmp_path: Path) -> None:
    words = "You look at pictures and say what there is to see, no more than that."
    plain = started(tmp_path)
    batch = batch_of(plain.bridge, sample(image(), QUESTION))
    engine = started(tmp_path, system=words)
    constant = engine.bridge.llm.packing
    assert constant is not None
    assert len(constant.constant) > 10
    longer = batch_of(engine.bridge, sample(image(), QUESTION))
    assert len(longer.prompts[0].ids) > len(batch.prompts[0].ids) + 10
    assert_exact(engine, longer)
    attended = StepFlops(engine.objectives).needed(longer) - StepFlops(plain.objectives).needed(batch)
    assert 0 < attended < 0.5 * (2 * N * len(constant.constant))  # half of what their forward pass would take


def test_one_sample_needs_the_same_in_any_batch(tmp_path: Path) -> None:
    engine = started(tmp_path)
    bridge, needed = engine.bridge, StepFlops(engine.objectives).needed
    short, long = sample(image(), QUESTION), sample(image(), QUESTION * 3, image())
    apart = needed(batch_of(bridge, short)) + needed(batch_of(bridge, long))
    assert needed(batch_of(bridge, short, long)) == apart


@pytest.mark.parametrize(
    ("train", "llm"),
    [(["connectors.*", "llm.*lora*"], {"lora": {"rank": 2, "alpha": 4}}), (["connectors.*", "llm.*layers*"], {})],
)
def test_what_trains_inside_the_llm(tmp_path: Path, train: list[str], llm: dict[str, Any]) -> None:
    """A matrix that trains costs a third product, and every position learns: all that is executed is needed."""
    engine, frozen = started(tmp_path, train=train, **llm), started(tmp_path)
    batch = batch_of(engine.bridge, sample(image(), QUESTION), sample(image(), QUESTION * 2))
    found = engine.bridge.forward(batch).context.trees
    flops = StepFlops(engine.objectives)
    assert found
    forbidden = surplus(found, flops.rows(batch), 0, None)["pairs the mask forbids"]
    assert counted(engine, batch) == flops.needed(batch) + forbidden == flops.executed(batch)
    assert flops.needed(batch) > StepFlops(frozen.objectives).needed(batch)


@pytest.mark.parametrize("family", ["gpt2", "phi", "gemma2"])
def test_other_families_execute_what_the_formula_says(tmp_path: Path, family: str) -> None:
    """Queries in one matrix with keys and values, an attention of its own, a sliding window."""
    engine = started(tmp_path, family)
    one = image()
    batch = batch_of(
        engine.bridge, sample(one, QUESTION), sample(one, QUESTION, answer="No."), sample(image(), "What?")
    )
    flops = StepFlops(engine.objectives)
    assert counted(engine, batch) == flops.executed(batch) > flops.needed(batch)
