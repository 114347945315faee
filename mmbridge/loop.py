"""The one training loop."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from mmbridge.data.batch import Batch
from mmbridge.engine import Engine
from mmbridge.errors import MMBridgeError
from mmbridge.flops import NeededFlops


@dataclass(frozen=True, slots=True)
class Step:
    """One optimiser step. ``loss`` is the weighted sum of ``losses``, which are by objective and weighted already.

    ``lr`` and ``grad_norm`` (before clipping) are those of this step; ``tokens`` are supervised, ``perceptual`` ones
    stand for media; ``needed_flops`` are those of ``mmbridge.flops``; ``seconds`` include waiting for data, and what
    the caller did since the last step does not count.
    """

    number: int
    loss: float
    losses: dict[str, float]
    lr: float
    grad_norm: float
    samples: int
    tokens: int
    perceptual: int
    needed_flops: int
    seconds: float


def fit(engine: Engine, batches: Iterable[Batch], steps: int, accumulate: int = 1, first: int = 0) -> Iterator[Step]:
    """Trains for ``steps`` steps of ``accumulate`` batches each, ``first`` of them done, and yields after every one.

    A step's losses are means over the terms of all its batches together, so its gradient is that of one big batch. A
    batch without samples (all were left out) counts for nothing; a step without any changes nothing.

    Raises:
        MMBridgeError: a loss or a gradient is not finite; the step is not taken, and its samples are named.
    """
    source, needed = iter(batches), NeededFlops(engine.bridge)
    for number in range(first + 1, steps + 1):
        began = time.perf_counter()
        taken = list(islice(source, accumulate))
        assert len(taken) == accumulate, f"data ran out at step {number} of {steps}"
        parts = [batch for batch in taken if len(batch)]
        terms = engine.terms(parts)
        losses = []
        for batch in parts:
            loss = engine.losses(batch, terms)
            engine.backward(loss)
            losses.append(loss.detach())
        values = engine.gathered(losses)
        for batch, value in zip(parts, values, strict=True):
            _require_finite(number, "the loss", sum(value), [batch])
        lr, norm = engine.lr, engine.step()
        _require_finite(number, "the gradient", norm, parts)
        named = {name: sum(value[index] for value in values) for index, name in enumerate(engine.names)}
        yield Step(
            number=number,
            loss=sum(map(sum, values)),
            losses=named,
            lr=lr,
            grad_norm=norm,
            samples=sum(map(len, parts)),
            tokens=sum(sum(prompt.supervised) for batch in parts for prompt in batch.prompts),
            perceptual=sum(sum(map(sum, engine.bridge.perceptual_tokens(batch).values())) for batch in parts),
            needed_flops=sum(map(needed, parts)),
            seconds=time.perf_counter() - began,
        )


def _require_finite(step: int, what: str, value: float, batches: Sequence[Batch]) -> None:
    if math.isfinite(value):
        return
    names = [prompt.sample for batch in batches for prompt in batch.prompts]
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    fix = "lower the learning rate, clip the gradient, or look at these samples"
    raise MMBridgeError(f"step {step}: {what} is {value}; among the samples {shown}; {fix}")
