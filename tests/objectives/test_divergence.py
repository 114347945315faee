"""Sinkhorn's divergence between tokens and words, of a batch and of each sample, against POT."""

from pathlib import Path
from typing import Any

import numpy as np
import ot
import pytest
import torch
from torch.testing import assert_close

from mmbridge.data.sample import Sample, conversation
from mmbridge.objectives.base import Objective
from mmbridge.objectives.config import DivergenceConfig
from mmbridge.objectives.weighted import WeightedObjectives
from tests.objectives.test_pairs import picture, samples
from tests.objectives.test_token_transport import trained
from tests.objectives.transported import Array, Held, bridge_of, cost, slope

EPSILON = 0.1
EXACT = {"kind": "divergence", "epsilon": EPSILON, "tolerance": 1e-6}


def built(**changes: Any) -> Objective:
    return DivergenceConfig.model_validate(EXACT | changes).build({}, "objectives.0")


def solved(x: Array, y: Array) -> tuple[float, Array]:
    """POT's cost, entropy against the product of the marginals included, and its plan."""
    found: Any = ot.solve(cost(x, y), reg=EPSILON, reg_type="KL", max_iter=5000, tol=1e-10)
    return float(found.value), found.plan


def divergence(x: Array, y: Array) -> tuple[float, Array]:
    """With its gradient with respect to x, which stands on both sides of a cost of its own."""
    (between, plan), (first, own), (second, _) = solved(x, y), solved(x, x), solved(y, y)
    return between - (first + second) / 2, slope(plan, x, y) - (slope(own, x, x) + slope(own.T, x, x)) / 2


def also_two() -> list[Sample]:
    """Of which one shows two media, the second that of another sample."""
    red, blue = picture("red"), picture("white")
    said = [((red, blue, "Which is red?"), "the first one of the two"), ((blue, "And this?"), "a blue one, it is")]
    more = [conversation(("user", asked), ("assistant", (text,))) for asked, text in said]
    return [*samples(), *(Sample(f"two {number}", each) for number, each in enumerate(more))]


@pytest.mark.proof("divergence", against="POT's entropic costs, of a batch and of its samples, with gradients")
def test_of_a_batch(parts: Path) -> None:
    """All tokens, each medium once, beside all words, one for each time that it is said; eight terms of one loss."""
    bridge = bridge_of(parts, EXACT)
    batch = bridge.collate()(also_two())
    held, objective = Held.of(bridge, batch), built()
    found = held.loss(objective)
    assert objective.terms(batch) == 8
    x = np.concatenate([held.of_medium(number) for number in range(len(held.tokens))])
    said = [token for text in held.texts for token in text]
    assert len({*said}) < len(said)
    expected, gradient = divergence(x, held.words(said))
    assert found == pytest.approx(8 * expected, abs=8 * 1e-5)
    gradients = [each.grad for each in held.tokens if each.grad is not None]
    assert_close(torch.cat(gradients).double().numpy(), 8 * gradient, atol=3e-5, rtol=1e-3)


@pytest.mark.proof("divergence", against="POT's entropic costs, of a batch and of its samples, with gradients")
def test_of_each_sample(parts: Path) -> None:
    bridge = bridge_of(parts, EXACT)
    batch = bridge.collate()(also_two())
    held, objective = Held.of(bridge, batch), built(of="pair")
    found, expected = held.loss(objective), 0.0
    assert objective.terms(batch) == 8
    gradients = [np.zeros(each.shape) for each in held.tokens]
    for (number, *_), text in zip(held.media, held.texts, strict=True):
        value, gradient = divergence(held.of_medium(number), held.words(text))
        expected += value
        gradients[number] += gradient
    assert found == pytest.approx(expected, abs=8e-5)
    for tokens, gradient in zip(held.tokens, gradients, strict=True):
        grad = torch.zeros_like(tokens) if tokens.grad is None else tokens.grad
        assert_close(grad.double().numpy(), gradient, atol=1e-5, rtol=1e-3)


def test_words_are_at_no_distance_from_themselves(parts: Path) -> None:
    """Whatever their order and lengths."""
    bridge = bridge_of(parts, EXACT)
    held = Held.of(bridge, bridge.collate()(samples((0,))))
    words = torch.from_numpy(held.words(held.texts[0])).float()
    held.tokens[0].data = 3 * words.flip(0)
    for of in ("batch", "pair"):
        assert abs(held.loss(built(of=of))) < 1e-5


@pytest.mark.parametrize("of", ["batch", "pair"])
def test_nothing_to_see_is_worth_nothing(of: str, parts: Path) -> None:
    bridge = bridge_of(parts, {"kind": "divergence", "of": of})
    module = WeightedObjectives(bridge, bridge.recipe.stages[0].objectives)
    for batch in (bridge.collate()([each for each in samples() if not each.media]), bridge.nothing()):
        assert module.terms([batch]) == (0,)
        bridge.zero_grad()
        losses = module(batch, [0])
        torch.autograd.backward(losses.sum())
        assert losses.tolist() == [0]
        for each in bridge.connectors.parameters():
            assert each.grad is not None
            assert each.grad.abs().max() == 0


@pytest.mark.parametrize("of", ["batch", "pair"])
def test_under_autocast(of: str, parts: Path) -> None:
    bridge = bridge_of(parts, EXACT | {"of": of})
    module = WeightedObjectives(bridge, bridge.recipe.stages[0].objectives)
    whole, gradients = trained(bridge, module, samples())
    with torch.autocast("cpu", torch.bfloat16):
        found, halved = trained(bridge, module, samples())
    assert found == pytest.approx(whole, rel=1e-2)
    assert halved.isfinite().all()
    assert float(torch.cosine_similarity(gradients, halved, dim=0)) > 0.99
