"""The one training loop."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from mmbridge.data.batch import Batch
from mmbridge.engine import Engine
from mmbridge.errors import MMBridgeError
from mmbridge.flops import StepFlops
from mmbridge.peak import joint_rate
from mmbridge.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Step:
    """One optimiser step. ``loss`` is the weighted sum of ``losses``, which are by objective and weighted already.

    All figures are those of all processes together. ``left_out`` is empty, or says why the step was not taken.

    ``figures`` are what objectives tell beside their losses, of the step's last batch.
    ``lr`` and ``grad_norm`` (before clipping) are those of this step; ``tokens`` are supervised, ``perceptual`` ones
    stand for media; ``needed_flops`` and ``executed_flops`` are those of ``mmbridge.flops``, ``peak_flops`` what
    all devices could have executed in the same time, or ``None`` where ``mmbridge.peak`` does not know; ``seconds``
    include waiting for data, and what the caller did since the last step does not count.
    """

    number: int
    left_out: str
    loss: float
    losses: dict[str, float]
    lr: float
    grad_norm: float
    samples: int
    tokens: int
    perceptual: int
    needed_flops: int
    executed_flops: int
    peak_flops: float | None
    seconds: float
    figures: dict[str, float] = field(default_factory=dict)


def fit(
    engine: Engine,
    batches: Iterable[Sequence[Batch]],
    steps: int,
    first: int = 0,
    spare: int = 0,
) -> Iterator[Step]:
    """Trains for ``steps`` steps, ``first`` of them done, each on its batches; yields after every one.

    A step's losses are means over the terms of all its batches together, on all processes, so its gradient is that of
    one big batch. A batch without samples (all were left out) counts for nothing; a step without any changes nothing.
    A step whose loss or gradient is not finite in any process is taken by none, ``spare`` times.

    Raises:
        MMBridgeError: one such step more; its samples are named.
    """
    source, ranks, flops = iter(batches), engine.ranks, StepFlops(engine.objectives)
    peak = joint_rate(engine)
    for number in range(first + 1, steps + 1):
        began = time.perf_counter()
        taken = next(source, ())
        assert taken, f"data ran out at step {number} of {steps}"
        terms = [int(each) for each in ranks.total(engine.terms(taken))]
        parts = []
        for place, batch in enumerate(taken, start=1):
            losses = engine.losses(batch, terms)
            engine.backward(losses, last=place == len(taken))
            parts.append(losses.detach())
        own: list[list[float]] = torch.stack(parts).tolist()  # the one time in a step that the device is waited for
        counts = [_count(engine, flops, batch) for batch in taken]
        sums = ranks.total(
            [sum(column) for column in zip(*own, strict=True)] + [sum(each) for each in zip(*counts, strict=True)]
        )
        named = dict(zip(engine.names, sums, strict=False))
        samples, tokens, perceptual, needed, executed = map(int, sums[-5:])
        lr, norm, loss = engine.lr, 0.0, sum(named.values())
        if math.isfinite(loss) and any(terms):
            norm = engine.step()
        else:
            engine.drop()
        left_out = ""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = f"the gradient is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
            left_out = f"{what}; among the samples {_suspects(taken, own, ranks)}"
            if spare == 0:
                fix = "lower the learning rate, clip the gradient, or look at these samples"
                raise MMBridgeError(f"step {number}: {left_out}; {fix}")
            spare -= 1
        seconds = time.perf_counter() - began
        yield Step(
            number=number,
            left_out=left_out,
            loss=loss,
            losses=named,
            figures=engine.objectives.figures,
            lr=lr,
            grad_norm=norm,
            samples=samples,
            tokens=tokens,
            perceptual=perceptual,
            needed_flops=needed,
            executed_flops=executed,
            peak_flops=None if peak is None else peak * seconds,
            seconds=seconds,
        )


def _count(engine: Engine, flops: StepFlops, batch: Batch) -> tuple[int, int, int, int, int]:
    """Samples, supervised tokens, perceptual tokens, FLOPs needed and executed."""
    tokens = sum(sum(prompt.supervised) for prompt in batch.prompts)
    perceptual = sum(map(sum, engine.bridge.perceptual_tokens(batch)))
    return len(batch), tokens, perceptual, *flops(batch)


def _suspects(batches: Sequence[Batch], losses: Sequence[Sequence[float]], ranks: Ranks) -> str:
    """The first samples of the batches whose loss is not finite, or of all if it is so of none, in all processes."""
    bad = [batch for batch, loss in zip(batches, losses, strict=True) if not math.isfinite(sum(loss))]
    chosen = bad if ranks.any(bool(bad)) else batches
    names = [prompt.sample for batch in chosen for prompt in batch.prompts]
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return ", ".join(each for each in ranks.texts(shown) if each)
