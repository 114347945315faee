"""Assignment prediction of a bridge: NumPy's loops over transformers' own states of captions, and counted words."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from mmbridge.batches import training_batches
from mmbridge.bridge import Bridge
from mmbridge.objectives.weighted import WeightedObjectives
from mmbridge.recipe import Recipe
from mmbridge.train import train
from mmbridge.word_counts import count_words, frequencies
from tests.objectives.test_pairs import samples
from tests.test_ranks import talk
from tests.tiny_bridge import tiny_recipe, tiny_stage
from tests.transport.assignment_loops import looped_loss, looped_plan, looped_released

LOOSE = 0.1
"""An ε, and a τ, with which words beside the nearest count as well."""
Shares = Callable[[np.ndarray, np.ndarray], np.ndarray]
SHARES: dict[str, tuple[dict[str, Any], Shares]] = {
    "three iterations": ({}, lambda scores, mu: looped_plan(scores, mu, LOOSE, 3)),
    "to a tolerance": (
        {"iterations": None, "tolerance": 1e-6},
        lambda scores, mu: looped_plan(scores, mu, LOOSE, 3000),
    ),
    "released": ({"plan": "released"}, lambda scores, mu: looped_released(scores, mu, LOOSE)),
    "uniform": ({"marginal": "uniform"}, lambda scores, mu: looped_plan(scores, mu, LOOSE, 3)),
    "softened": ({"marginal": "softened"}, lambda scores, mu: looped_plan(scores, mu, LOOSE, 3)),
}


def recipe(parts: Path, **changes: Any) -> Recipe:
    asked = {"kind": "assignment", "epsilon": LOOSE, "temperature": LOOSE} | changes
    return tiny_recipe(parts, tiny_stage(objectives=[asked]))


def counted(bridge: Bridge, made: Recipe) -> tuple[WeightedObjectives, Tensor]:
    """The objective, and how often the stage says each word, in ``Counter``'s hands."""
    objectives = WeightedObjectives(bridge, made.stages[0].objectives)
    batches, _ = training_batches(bridge, made.stages[0], 0)
    count_words(objectives, batches)
    said = Counter[int]()
    for batch in batches:
        for prompt in batch.prompts:
            said.update(np.array(prompt.ids)[np.array(prompt.supervised)].tolist())
    share = torch.tensor([said[word] for word in range(bridge.llm.vocabulary)], dtype=torch.float64)
    return objectives, share / share.sum()


@pytest.mark.proof("assignment", against="VLAP's loss in NumPy's loops over transformers' states, with gradients")
@pytest.mark.parametrize("kind", SHARES)
def test_loss_and_gradients_are_those_of_loops(kind: str, parts: Path) -> None:
    """Six texts about five media, and one sample without any."""
    changes, shares = SHARES[kind]
    made = recipe(parts, **changes)
    bridge = Bridge(made)
    objectives, said = counted(bridge, made)
    mu = {"uniform": torch.full_like(said, 1 / len(said)), "softened": (said / 0.25).softmax(0)}.get(kind, said)
    batch = bridge.collate()(samples())
    shown = [number for number, media in enumerate(batch.media) if media]
    assert objectives.terms([batch]) == (6,)

    theirs: Any = AutoModelForCausalLM.from_pretrained(parts / "llm")
    texts = []
    for number in shown:
        prompt = batch.prompts[number]
        words = np.array(prompt.ids)[np.array(prompt.supervised)].tolist()
        ids = torch.tensor([[bridge.llm.tokenizer.bos_token_id, *words]])
        with torch.no_grad():
            texts.append(theirs(ids, output_hidden_states=True).hidden_states[-1][0, 1:].mean(0))
    means = torch.stack([bridge.perceive(batch).tokens[number][0].mean(0) for number in shown])
    table = theirs.get_input_embeddings().weight.detach()
    losses, gradients = looped_loss(
        means.detach().double().numpy(),
        torch.stack(texts).double().numpy(),
        table.double().numpy(),
        lambda scores: shares(scores, mu.numpy()),
        LOOSE,
    )
    wanted = torch.autograd.grad(means, [*bridge.connectors.parameters()], torch.tensor(gradients[0]).float() / 6)

    found = objectives(batch, objectives.terms([batch]))
    torch.autograd.backward(found.sum())
    assert found.item() == pytest.approx(losses.mean(), rel=1e-4)
    for own, other in zip(bridge.connectors.parameters(), wanted, strict=True):
        assert own.grad is not None
        assert_close(own.grad, other, rtol=1e-3, atol=1e-6)
    assert all(each.grad is None for each in bridge.llm.parameters())
    figure = objectives.figures["assignment/residual"]
    assert (figure < 1e-5) == (kind == "to a tolerance")


def test_words_are_counted_in_the_texts_of_the_stage(parts: Path) -> None:
    made = recipe(parts)
    bridge = Bridge(made)
    batches, _ = training_batches(bridge, made.stages[0], 0)
    _, said = counted(bridge, made)
    assert_close(frequencies(batches, 12, bridge.llm.vocabulary).double(), said, rtol=1e-5, atol=0)
    assert_close(said.sum().item(), 1.0)
    few = frequencies(batches, 2, bridge.llm.vocabulary)
    assert not torch.equal(few.double(), said)
    assert_close(few.sum().item(), 1.0)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_stage_is_trained_by_it_and_tells_the_residual(mixed: bool, parts: Path, tmp_path: Path) -> None:
    """Alone, and beside captions, with texts among the images that show nothing; a batch may show none at all."""
    images = {"kind": "files", "path": "DATA", "task": "caption"}
    text = {"kind": "files", "path": str(talk(parts)), "task": "messages", "weight": 3.0}
    asked: list[dict[str, Any]] = [{"kind": "assignment", "weight": 0.1}, *[{"kind": "next_token"}] * mixed]
    stage = tiny_stage(objectives=asked, data={"mix": [images, text] if mixed else [images]}, batch=2, steps=6)
    made = tiny_recipe(parts, stage, log={"tensorboard": False, "every": 1})
    bridge = train(made, tmp_path / "run")
    lines = (tmp_path / "run" / "stages" / "align" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 6
    assert all('"assignment/residual"' in line for line in lines)
    before = Bridge(made).connectors.state_dict()
    changed = [not torch.equal(each, before[name]) for name, each in bridge.connectors.state_dict().items()]
    assert all(changed)


def test_a_plan_of_no_iterations_is_refused(parts: Path) -> None:
    with pytest.raises(ValueError, match="iterations: plan released runs a number of them"):
        recipe(parts, plan="released", iterations=None)
