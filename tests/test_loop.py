"""The loop over an engine that only keeps account."""

import math
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mmbridge import loop
from mmbridge.data.batch import Batch
from mmbridge.data.sample import Sample
from mmbridge.errors import MMBridgeError
from mmbridge.llm.prompt import Prompt
from mmbridge.loop import Step, fit
from mmbridge.ranks import ALONE


class Ledger:
    """An engine whose loss is the share of the step's terms; it writes down what it is asked to do."""

    names = ("next_token",)
    lr = 0.5
    ranks = ALONE

    def __init__(self, *, norm: float = 1.0, poison: str = "") -> None:
        self.calls: list[Any] = []
        self._norm, self._poison = norm, poison
        self.bridge = self.objectives = SimpleNamespace(perceptual_tokens=lambda batch: [[3]] * len(batch), figures={})

    def terms(self, batches: Sequence[Batch]) -> tuple[int, ...]:
        return (sum(sum(prompt.supervised) for batch in batches for prompt in batch.prompts),)

    def losses(self, batch: Batch, terms: Sequence[int]) -> Tensor:
        names = [prompt.sample for prompt in batch.prompts]
        self.calls.append(("losses", names, tuple(terms)))
        bad = self._poison in names
        return torch.tensor([math.nan if bad else self.terms([batch])[0] / max(1, terms[0])])

    def backward(self, losses: Tensor, last: bool) -> None:
        self.calls.append("last backward" if last else "backward")

    def step(self) -> float:
        self.calls.append("step")
        return self._norm

    def drop(self) -> None:
        self.calls.append("drop")


@pytest.fixture(autouse=True)
def needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """This engine's bridge has no parts to read: a batch needs ten FLOPs a sample, and a device makes a hundred."""
    monkeypatch.setattr(loop, "joint_rate", lambda engine: 100.0)
    monkeypatch.setattr(loop, "StepFlops", lambda objectives: lambda batch: (10 * len(batch), 11 * len(batch)))


def batch(*names: str) -> Batch:
    """Samples of as many supervised tokens as their names have letters."""
    prompts = tuple(Prompt(name, (0,) * len(name), (True,) * len(name), (), name) for name in names)
    return Batch(prompts, {}, tuple(Sample(name, ()) for name in names))


def run(engine: Ledger, batches: Sequence[Batch], steps: int, accumulate: int = 1, spare: int = 0) -> Iterator[Step]:
    taken = [batches[start : start + accumulate] for start in range(0, len(batches), accumulate)]
    return fit(engine, taken, steps, spare=spare)  # type: ignore[arg-type]


def test_a_step_is_all_its_batches_then_one_step() -> None:
    engine = Ledger()
    steps = list(run(engine, [batch("a", "bb"), batch("ccc"), batch("d"), batch("e")], 2, accumulate=2))
    assert engine.calls == [
        ("losses", ["a", "bb"], (6,)),
        "backward",
        ("losses", ["ccc"], (6,)),
        "last backward",
        "step",
        ("losses", ["d"], (2,)),
        "backward",
        ("losses", ["e"], (2,)),
        "last backward",
        "step",
    ]
    assert [(step.number, step.samples, step.tokens, step.perceptual) for step in steps] == [(1, 3, 6, 9), (2, 2, 2, 6)]
    assert [step.loss for step in steps] == [1.0, 1.0]
    assert [(step.needed_flops, step.executed_flops) for step in steps] == [(30, 33), (20, 22)]
    assert all(step.peak_flops == 100 * step.seconds for step in steps)
    assert (steps[0].lr, steps[0].grad_norm, steps[0].losses) == (0.5, 1.0, {"next_token": 1.0})


def test_batches_are_taken_only_when_needed_and_no_more_than_needed() -> None:
    taken: list[str] = []

    def source() -> Iterator[list[Batch]]:
        for name in "abcd":
            taken.append(name)
            yield [batch(name)]

    running = fit(Ledger(), source(), 3)  # type: ignore[arg-type]
    assert taken == []
    next(running)
    assert taken == ["a"]
    assert [step.number for step in running] == [2, 3]
    assert taken == ["a", "b", "c"]


def test_batches_of_which_every_sample_was_left_out_count_for_nothing() -> None:
    engine = Ledger()
    steps = list(run(engine, [batch(), batch("bb"), batch(), batch()], 2, accumulate=2))
    assert [call for call in engine.calls if call in ("step", "drop")] == ["step", "drop"]
    assert [(step.samples, step.tokens, step.loss) for step in steps] == [(1, 2, 1.0), (0, 0, 0)]


def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_its_batch() -> None:
    engine = Ledger(poison="bad")
    with pytest.raises(MMBridgeError, match=r"step 1: the loss is nan; among the samples bad, b; .*") as caught:
        list(run(engine, [batch("a"), batch("bad", "b")], 1, accumulate=2))
    assert caught.value.exit_code == 1
    assert engine.calls[-1] == "drop"
    assert "step" not in engine.calls


def test_so_many_bad_steps_are_left_out_and_no_more() -> None:
    engine = Ledger(poison="bad")
    running = run(engine, [batch("bad"), batch("a"), batch("bad"), batch("bad")], 4, spare=2)
    why = "the loss is nan; among the samples bad"
    assert [next(running).left_out for _ in range(3)] == [why, "", why]
    with pytest.raises(MMBridgeError, match=f"step 4: {why}; "):
        next(running)
    assert [call for call in engine.calls if call in ("step", "drop")] == ["drop", "step", "drop", "drop"]


def test_a_gradient_that_is_not_finite_names_the_samples_of_the_step() -> None:
    with pytest.raises(MMBridgeError, match=r"the gradient is inf; among the samples s0, s1, .* s7 and 2 more;"):
        list(run(Ledger(norm=math.inf), [batch(*(f"s{index}" for index in range(10)))], 1))
