"""Tokens carried to the words said of their medium, against NumPy and POT sample by sample."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ot
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmbridge.bridge import Bridge
from mmbridge.data.sample import Sample
from mmbridge.objectives import token_transport
from mmbridge.objectives.negatives import drawn
from mmbridge.objectives.run import BatchRun
from mmbridge.objectives.weighted import WeightedObjectives
from tests.objectives.test_pairs import samples
from tests.objectives.transported import Array, Held, bridge_of, cost, slope
from tests.transport.test_ipot import looped


def entropic(matrix: Array) -> Array:
    found: Array = ot.bregman.sinkhorn_log([], [], matrix, 0.05, numItermax=50_000, stopThr=1e-10)
    return found


def relaxed(matrix: Array) -> Array:
    """Tokens may be left behind, words may not."""
    n, m = matrix.shape
    given = np.full(n, 1 / n), np.full(m, 1 / m), matrix, 0.1, (0.3, float("inf"))
    found: Array = ot.unbalanced.sinkhorn_unbalanced(*given, numItermax=100_000, stopThr=1e-12)
    return found


PLANS: dict[str, tuple[dict[str, Any], Callable[[Array], Array]]] = {
    "uniter": ({}, lambda matrix: looped(matrix, 0.5, 50)),
    "ipot": ({"plan": {"kind": "ipot", "beta": 0.2, "iterations": 7}}, lambda matrix: looped(matrix, 0.2, 7)),
    "sinkhorn": ({"plan": {"kind": "sinkhorn", "epsilon": 0.05, "tolerance": 1e-6}}, entropic),
    "unbalanced": ({"plan": {"kind": "unbalanced", "epsilon": 0.1, "tokens": 0.3, "tolerance": 1e-7}}, relaxed),
}


def kept(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What is drawn from now on."""
    found: list[list[int]] = []

    def told(near: Tensor, matching: Tensor) -> Tensor:
        numbers = drawn(near, matching)
        found.append(numbers.tolist())
        return numbers

    monkeypatch.setattr(token_transport, "drawn", told)
    return found


@pytest.mark.proof("token_transport", against="POT's plans and IPOT in NumPy, sample by sample, with gradients")
@pytest.mark.parametrize("contrast", [False, True])
@pytest.mark.parametrize("name", PLANS)
def test_losses_are_those_of_loops(name: str, contrast: bool, parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six samples show five media, of 3 to 6 tokens; with contrast each beside a text about another medium."""
    changes, plan = PLANS[name]
    bridge, drew = bridge_of(parts, {"kind": "token_transport", "contrast": contrast, **changes}), kept(monkeypatch)
    batch = bridge.collate()(samples())
    held = Held.of(bridge, batch)
    objective = bridge.recipe.stages[0].objectives[0].build(bridge.recipe.connectors, "objectives.0")
    torch.manual_seed(0)
    found = held.loss(objective)
    assert objective.terms(batch) == len(held.media) == 6
    expected, gradients = 0.0, [np.zeros(each.shape) for each in held.tokens]
    for sample, (number,) in enumerate(held.media):
        others = [(drew[0][sample], -1)] if contrast else []
        for text, sign in [(sample, 1), *others]:
            assert sign == 1 or held.media[text] != held.media[sample]
            x, y = held.of_medium(number), held.words(held.texts[text])
            matrix = cost(x, y)
            carried = plan(matrix)
            expected += sign * float((carried * matrix).sum())
            gradients[number] += sign * slope(carried, x, y)
    assert found == pytest.approx(expected, abs=2e-5)
    for tokens, gradient in zip(held.tokens, gradients, strict=True):
        assert tokens.grad is not None
        assert_close(tokens.grad.double().numpy(), gradient, atol=3e-6, rtol=1e-4)
    figures: dict[str, float] = objective.figures  # type: ignore[attr-defined]
    assert 0 < figures["residual"] < (0.2 if "ipot" in name or name == "uniter" else 1e-4)


def module_of(parts: Path, **changes: Any) -> tuple[Bridge, WeightedObjectives]:
    bridge = bridge_of(parts, {"kind": "token_transport", **changes})
    bridge.llm.requires_grad_(True)
    return bridge, WeightedObjectives(bridge, bridge.recipe.stages[0].objectives)


def trained(bridge: Bridge, module: WeightedObjectives, chosen: list[Sample]) -> tuple[float, Tensor]:
    """The loss, and all gradients of the connector."""
    batch = bridge.collate()(chosen)
    bridge.zero_grad()
    losses = module(batch, [1])
    torch.autograd.backward(losses.sum())
    gradients = [each.grad for each in bridge.connectors.parameters()]
    return float(losses.sum().detach()), torch.cat([each.flatten() for each in gradients if each is not None])


@pytest.mark.parametrize("contrast", [False, True])
def test_the_llm_neither_runs_nor_learns(contrast: bool, parts: Path) -> None:
    bridge, module = module_of(parts, contrast=contrast)

    def never(*_: Any) -> None:
        raise AssertionError

    bridge.llm.register_forward_pre_hook(never)
    _, gradients = trained(bridge, module, samples())
    assert gradients.abs().max() > 0
    assert all(each.grad is None for each in bridge.llm.parameters())


def test_another_text_is_drawn_at_random(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of media that no other sample shows, every other text; from torch's random state."""
    bridge, module = module_of(parts, contrast=True)
    drew, found = kept(monkeypatch), list[float]()
    for _ in range(2):
        torch.manual_seed(3)
        found += [trained(bridge, module, samples())[0] for _ in range(2)]
    assert found[:2] == found[2:]
    assert len({*found}) == 2
    batch = bridge.collate()(samples())
    for _ in range(60):
        token_transport._beside_others(BatchRun(bridge, batch))
    assert {row[0] for row in drew} == {row[3] for row in drew} == {1, 2, 4, 5}
    assert {row[1] for row in drew} == {0, 2, 3, 4, 5}


def test_one_medium_has_no_others(parts: Path) -> None:
    plain, contrasted = (module_of(parts, contrast=contrast) for contrast in (False, True))
    chosen = samples((0, 0))
    assert trained(*contrasted, chosen)[0] == pytest.approx(trained(*plain, chosen)[0], rel=1e-6)


@pytest.mark.parametrize("contrast", [False, True])
def test_nothing_to_see_is_worth_nothing(contrast: bool, parts: Path) -> None:
    bridge, module = module_of(parts, contrast=contrast)
    for batch in (bridge.collate()([each for each in samples() if not each.media]), bridge.nothing()):
        assert module.terms([batch]) == (0,)
        bridge.zero_grad()
        losses = module(batch, [0])
        torch.autograd.backward(losses.sum())
        assert losses.tolist() == [0]
        for each in bridge.connectors.parameters():
            assert each.grad is not None
            assert each.grad.abs().max() == 0


@pytest.mark.parametrize("name", PLANS)
def test_under_autocast(name: str, parts: Path) -> None:
    """Costs and plans are whole; what connectors compute is not."""
    bridge, module = module_of(parts, **PLANS[name][0])
    whole, gradients = trained(bridge, module, samples())
    figures = module.figures
    with torch.autocast("cpu", torch.bfloat16):
        found, halved = trained(bridge, module, samples())
    assert found == pytest.approx(whole, rel=1e-2)
    assert halved.isfinite().all()
    assert float(torch.cosine_similarity(gradients, halved, dim=0)) > 0.99
    assert module.figures["token_transport/residual"] == pytest.approx(
        figures["token_transport/residual"], rel=0.5, abs=2e-6
    )
