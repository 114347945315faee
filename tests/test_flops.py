"""A training step counted by torch against the formula of what it needs: no clock is asked.

torch counts products of whole matrices. Under the math backend attention counts as T² pairs, of which T(T + 1)/2 are
needed: fused kernels skip the others, but on a CPU torch counts those kernels as nothing at all. Whatever else is
executed and not needed is written down in ``surplus``, from the sizes of the tiny models; needed and surplus must add
up to what torch counts, to the last FLOP.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from mmbridge.data.batch import Batch
from mmbridge.evaluation.flops import executed_flops
from mmbridge.flops import NeededFlops
from mmbridge.llm.flops import Row
from mmbridge.torch_engine import TorchEngine
from tests.tiny_step import FEED, GROUPS, HEADS, LAYERS, QUESTION, TOKENS, WIDTH, batch_of, image, sample, started

OTHERS = 2 * WIDTH * HEADS + 3 * WIDTH * FEED
"""Multiply-adds a position in a layer's matrices that are no keys or values."""
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


def pairs(length: int) -> int:
    return length * (length + 1) // 2


def surplus(row: Row, width: int, vocabulary: int) -> dict[str, int]:
    """What a frozen decoder executes and nobody needs, for one sample of a batch ``width`` positions wide."""
    length, asks = row.length, len(row.predicting)
    front = length if row.first is None else row.first
    ends = [int(position) + 1 for position in row.predicting]
    learning = [end for end in ends if end > front]
    product = 4 * HEADS  # two products of attention, a pair
    return {
        "pairs the causal mask forbids": 3 * LAYERS * product * (width**2 - pairs(width)),
        "padding, and what follows the last that predicts": 4 * N * (width - length)
        + 3 * LAYERS * product * (pairs(width) - pairs(length)),
        "backward with nothing trainable in front": 2 * N * front
        + LAYERS * product * (pairs(length) + pairs(front) - pairs(length - front))
        + 2 * vocabulary * WIDTH * (asks - len(learning)),
        "the last layer where nothing is predicted": 2 * OTHERS * (2 * length - front - asks - len(learning))
        + product * (pairs(length) - sum(ends) + pairs(length) - pairs(front) - sum(learning))
        + product * (pairs(length - front) - sum(end - front for end in learning)),
    }


def assert_exact(engine: TorchEngine, batch: Batch) -> dict[str, int]:
    """Holds executed against needed and surplus; returns the surplus of the batch."""
    needed = NeededFlops(engine.bridge)
    width = engine.bridge.spliced(batch, "right").ids.shape[1]
    total: dict[str, int] = {}
    for row in needed.rows(batch):
        for reason, flops in surplus(row, width, engine.bridge.llm.model.config.vocab_size).items():
            total[reason] = total.get(reason, 0) + flops
    assert counted(engine, batch) == needed(batch) + sum(total.values())
    return total


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_rows_of_one_length(tmp_path: Path, family: str) -> None:
    """Live encoder, tapped before its last block; frozen LLM with grouped queries; 6, 5 and 4 supervised tokens."""
    engine = started(tmp_path, family)
    batch = fewer_and_fewer(batch_of(engine.bridge, *[sample(image(), QUESTION) for _ in range(3)]))
    assert sorted({sum(prompt.supervised) for prompt in batch.prompts}) == [4, 5, 6]
    assert_exact(engine, batch)
    needed, projector = NeededFlops(engine.bridge), 2 * WIDTH * WIDTH
    assert needed.connectors(batch) == 3 * TOKENS * (2 * projector + 3 * projector)
    forward = executed_flops(lambda: engine.bridge.perceive(batch))
    assert forward == needed.encoders(batch) + 3 * TOKENS * 2 * projector


def test_padding_texts_alone_and_several_images(tmp_path: Path) -> None:
    engine = started(tmp_path)
    several = sample("Question: which is red?", image(), "or", image(), answer="both")
    batch = batch_of(engine.bridge, sample(image(), QUESTION), sample(QUESTION, answer="two"), several)
    assert min(assert_exact(engine, batch).values()) > 0


def test_one_sample_needs_the_same_in_any_batch(tmp_path: Path) -> None:
    bridge = started(tmp_path).bridge
    needed, short, long = NeededFlops(bridge), sample(image(), QUESTION), sample(image(), QUESTION * 3, image())
    apart = needed(batch_of(bridge, short)) + needed(batch_of(bridge, long))
    assert needed(batch_of(bridge, short, long)) == apart


def test_what_trains_inside_the_llm(tmp_path: Path) -> None:
    """A matrix that trains costs a third product, and every position learns: T0 is 0."""
    frozen = started(tmp_path)
    batch = batch_of(frozen.bridge, sample(image(), QUESTION))
    row, width = NeededFlops(frozen.bridge).rows(batch)[0], frozen.bridge.spliced(batch, "right").ids.shape[1]
    beside, tail = sum(surplus(replace(row, first=0), width, 0).values()), width - row.length

    lora = started(tmp_path, train=["connectors.*", "llm.*lora*"], lora={"rank": 2, "alpha": 4})
    adapters = 2 * LAYERS * (2 * (WIDTH + HEADS) + 2 * (WIDTH + GROUPS) + 3 * (WIDTH + FEED))
    executed = counted(lora, batch)
    assert executed == counted(frozen, batch) + 6 * adapters * width
    assert executed == NeededFlops(lora.bridge)(batch) + beside + 6 * adapters * tail

    whole = started(tmp_path, train=["connectors.*", "llm.*layers*"])
    executed, unread = counted(whole, batch), row.length - len(row.predicting)
    assert executed == counted(frozen, batch) + 2 * N * width
    assert executed == NeededFlops(whole.bridge)(batch) + beside + 2 * N * tail - 4 * OTHERS * unread
