"""One process of torch: exact accumulation, frozen tensors left alone, the same bits for the same seed."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmbridge.batches import training_batches
from mmbridge.bridge import Bridge
from mmbridge.data.batch import Batch
from mmbridge.data.sample import Sample, conversation
from mmbridge.errors import RecipeError
from mmbridge.loop import fit
from mmbridge.torch_engine import TorchEngine
from mmbridge.trainable import unfreeze
from tests.tiny_bridge import tiny_recipe, tiny_stage

LORA = {"rank": 2, "alpha": 4, "dropout": 0.5}


def started(parts: Path, llm: dict[str, Any] | None = None, **changes: Any) -> tuple[TorchEngine, list[Batch]]:
    """An engine for a stage of ``changes``, and all the stage's batches."""
    recipe = tiny_recipe(parts, tiny_stage(**changes), llm={"path": str(parts / "llm")} | (llm or {}))
    stage = recipe.stages[0]
    bridge = Bridge(recipe)
    unfreeze(bridge, stage, "stages.align", parts=["connectors.", "llm."])
    loader, steps = training_batches(bridge, stage, seed=0)
    torch.manual_seed(0)
    return TorchEngine(bridge, stage, steps, "stages.align"), list(loader)


def alone(batches: list[Batch]) -> list[list[Batch]]:
    """Steps of one batch each."""
    return [[batch] for batch in batches]


def gradients(engine: TorchEngine) -> dict[str, Tensor]:
    found = {name: each.grad for name, each in engine.bridge.named_parameters() if each.grad is not None}
    return {name: grad.clone() for name, grad in found.items()}


def accumulated(parts: Path, batch: int, accumulate: int) -> tuple[float, dict[str, Tensor]]:
    engine, batches = started(parts, batch=batch, accumulate=accumulate, steps=1, train=["connectors.*", "llm.*.1.*"])
    terms, losses = engine.terms(batches), []
    for each in batches:
        loss = engine.losses(each, terms)
        engine.backward(loss)
        losses.append(loss.detach())
    return float(torch.stack(losses).sum()), gradients(engine)


@pytest.mark.parametrize(("batch", "accumulate"), [(2, 4), (4, 2), (1, 8)])
def test_a_step_in_parts_has_the_gradient_of_one_big_batch(parts: Path, batch: int, accumulate: int) -> None:
    """The samples have unequal numbers of supervised tokens, so a mean of means would differ."""
    loss, whole = accumulated(parts, 8, 1)
    loss_in_parts, pieces = accumulated(parts, batch, accumulate)
    assert loss_in_parts == pytest.approx(loss, rel=1e-6)
    assert set(pieces) == set(whole)
    for name, gradient in whole.items():
        scale = float(gradient.abs().max())
        assert_close(pieces[name] / scale, gradient / scale, rtol=0, atol=1e-6)


def test_frozen_tensors_are_the_same_bits_after_50_steps(parts: Path) -> None:
    engine, batches = started(parts, steps=50, batch=2)
    before = {name: each.clone() for name, each in engine.bridge.state_dict().items()}
    list(fit(engine, alone(batches), 50))
    after = engine.bridge.state_dict()
    changed = {name for name, each in after.items() if not torch.equal(each, before[name])}
    assert changed == {name for name in after if name.startswith("connectors.")}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_rerun_gives_the_same_curve_and_weights_bit_for_bit(parts: Path, precision: str) -> None:
    runs = []
    for noise in (0, 1):
        torch.manual_seed(noise)  # what happened before does not matter
        engine, batches = started(
            parts, llm={"lora": LORA}, steps=4, precision=precision, train=["connectors.*", "*lora*"]
        )
        curve = [(step.loss, step.grad_norm) for step in fit(engine, alone(batches), 4)]
        runs.append((curve, engine.weights()))
    (curve, weights), (again, weights_again) = runs
    assert curve == again
    assert all(torch.equal(each, weights_again[name]) for name, each in weights.items())
    assert len({loss for loss, _ in curve}) == 4


def test_bfloat16_computes_in_it_and_keeps_weights_in_float32(parts: Path) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        engine, batches = started(parts, precision=precision, llm={"dtype": precision}, steps=1)
        (step,) = fit(engine, alone(batches), 1)
        losses[precision] = step.loss
        assert {each.dtype for each in engine.weights().values()} == {torch.float32}
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


def test_what_trains_inside_a_bfloat16_llm_trains_in_float32(parts: Path) -> None:
    engine, batches = started(
        parts, llm={"dtype": "bfloat16"}, precision="bfloat16", train=["llm.*.1.mlp*"], steps=2, optim={"lr": 1e-5}
    )
    before = engine.weights()
    list(fit(engine, alone(batches), 2))
    for name, each in engine.weights().items():
        assert each.dtype is torch.float32
        assert not torch.equal(each, before[name])  # a step of 1e-5 would be lost in bfloat16


def test_the_gradient_is_clipped_to_its_limit(parts: Path) -> None:
    norms, updates = [], []
    for clip in (None, 1e-3):
        engine, batches = started(parts, optim={"lr": 1.0, "clip": clip, "eps": 1.0}, steps=1)
        before = engine.weights()
        (step,) = fit(engine, alone(batches), 1)
        norms.append(step.grad_norm)
        moved = torch.cat([(each - before[name]).flatten() for name, each in engine.weights().items()])
        updates.append(float(moved.norm()))  # with so large an eps AdamW's first step is nearly the gradient
    assert norms[0] == norms[1] > 1e-3
    assert updates[1] == pytest.approx(1e-3, rel=1e-2)
    assert updates[0] > 10 * updates[1]


def test_a_gradient_that_is_not_finite_changes_nothing(parts: Path) -> None:
    engine, batches = started(parts, steps=1)
    before = engine.weights()
    engine.backward(engine.losses(batches[0], engine.terms(batches[:1])) * float("inf"))
    assert engine.step() != engine.step()  # nan, then 0: it was cleared
    assert all(torch.equal(each, before[name]) for name, each in engine.weights().items())


def test_a_batch_of_text_alone_has_no_gradient_for_connectors(parts: Path) -> None:
    engine, batches = started(parts, steps=2, batch=4)
    talk = [Sample("t", conversation(("user", ("hi",)), ("assistant", ("hello",))))]
    text = engine.bridge.collate()(talk)
    before = engine.weights()
    first, second = fit(engine, [[text], [batches[0]]], 2)
    assert (first.grad_norm, first.perceptual) == (0.0, 0)
    assert first.loss > 0
    assert second.grad_norm > 0
    assert not all(torch.equal(each, before[name]) for name, each in engine.weights().items())


def test_weights_are_put_back(parts: Path) -> None:
    engine, batches = started(parts, steps=2)
    before = engine.weights()
    next(fit(engine, alone(batches), 2))
    assert not all(torch.equal(each, before[name]) for name, each in engine.weights().items())
    engine.restore(before)
    assert all(torch.equal(each, before[name]) for name, each in engine.weights().items())


def test_steps_follow_from_epochs(parts: Path) -> None:
    recipe = tiny_recipe(parts, tiny_stage(steps=None, epochs=1.5, batch=3, accumulate=2))
    loader, steps = training_batches(Bridge(recipe), recipe.stages[0], seed=0)
    assert steps == 4  # 24 samples in steps of 6
    seen = [sample.id for batch in islice(loader, 8) for sample in batch.samples]
    assert len(seen) == 24
    assert len(set(seen[:16])) == 16


def test_a_group_must_match_something_that_trains(parts: Path) -> None:
    groups = [{"match": "llm.*", "lr": 1e-5}]
    with pytest.raises(RecipeError, match=r"stages.align.optim.groups.0.match: .* which matches none"):
        started(parts, optim={"lr": 1.0, "groups": groups})
