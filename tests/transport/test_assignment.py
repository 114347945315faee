"""Assignment prediction against loops over single numbers, the published loops, and itself in two processes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmbridge.ranks import together
from mmbridge.transport.assignment import AssignmentPrediction, assigned, released, swav, word_marginal
from mmbridge.transport.prototypes import cosines
from tests import processes
from tests.transport.assignment_loops import looped_cosines, looped_loss, looped_plan, looped_released, looped_swav
from tests.transport.clouds import points, weights

B, K, D = 5, 23, 7
LOOSE = 0.1
"""An ε with which three iterations are not enough."""


def given(seed: int = 0, samples: int = B) -> tuple[Tensor, Tensor, Tensor]:
    """Media and captions that resemble each other, and a table."""
    table, captions = points(K, D, seed), points(samples, D, seed + 1)
    return captions + points(samples, D, seed + 2) / 2, captions, table


@pytest.mark.parametrize("kind", ["to a tolerance", "three", "three uniform", "released"])
def test_loss_and_gradients_are_those_of_loops(kind: str) -> None:
    media, captions, table = given()
    mu = weights(K, 3)
    even = kind == "three uniform"
    prior = np.full(K, 1 / K) if even else mu.numpy()
    count = 5000 if kind == "to a tolerance" else 3

    def shares(scores: np.ndarray) -> np.ndarray:
        if kind == "released":
            return looped_released(scores, prior, LOOSE)
        return looped_plan(scores, prior, LOOSE, count)

    losses, gradients = looped_loss(media.numpy(), captions.numpy(), table.numpy(), shares, 0.07)
    predict = AssignmentPrediction(
        table,
        None if even else mu,
        epsilon=LOOSE,
        temperature=0.07,
        iterations=None if kind == "to a tolerance" else 3,
        tolerance=1e-10,
        as_released=kind == "released",
        chunk=4,
    )
    media, captions = media.requires_grad_(), captions.requires_grad_()
    found = predict(media, captions)
    found.losses.sum().backward()  # type: ignore[no-untyped-call]
    assert_close(found.losses.detach().numpy(), losses, rtol=1e-7, atol=1e-9)
    assert media.grad is not None
    assert captions.grad is not None
    assert_close(media.grad.numpy(), gradients[0], rtol=1e-6, atol=1e-8)
    assert_close(captions.grad.numpy(), gradients[1], rtol=1e-6, atol=1e-8)
    seen = [looped_cosines(each.detach().numpy(), table.numpy()) for each in (media, captions)]
    off = [np.abs(shares(each).mean(0) - prior).sum() for each in seen]
    assert found.residual == pytest.approx(max(off), abs=1e-6)
    assert (found.residual <= 1e-10) == (kind == "to a tolerance")
    assert found.iterations == 3 or kind == "to a tolerance"


@pytest.mark.parametrize("epsilon", [0.5, 0.05, 0.01])
def test_swav_is_its_published_loop(epsilon: float) -> None:
    media, _, table = given()
    scores = cosines(media, table)
    assert_close(swav(scores, epsilon).shares.numpy(), looped_swav(scores.numpy(), epsilon))


@pytest.mark.parametrize("epsilon", [0.5, 0.05, 0.01])
def test_the_closed_form_is_the_released_loop(epsilon: float) -> None:
    media, _, table = given()
    scores, mu = cosines(media, table), weights(K, 3)
    expected = looped_released(scores.numpy(), mu.numpy(), epsilon)
    assert_close(released(scores, mu, epsilon=epsilon).shares.numpy(), expected, rtol=1e-9, atol=1e-15)


def test_marginal_of_words() -> None:
    frequencies = points(K, 1, 9)[:, 0].abs()
    exponents = np.exp(frequencies.numpy() / 0.25)
    assert_close(word_marginal(frequencies).double().numpy(), exponents / exponents.sum(), rtol=1e-5, atol=0)


def test_words_without_a_share_get_nothing() -> None:
    media, _, table = given()
    mu = weights(K, 3, zeros=4)
    for found in (assigned(cosines(media, table), mu, epsilon=LOOSE), released(cosines(media, table), mu)):
        assert found.shares[:, -4:].abs().max() == 0
        assert_close(found.shares.sum(1), torch.ones(B, dtype=torch.float64))


@pytest.mark.parametrize("chunk", [1, 4, 23, 100])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_chunks_change_nothing(chunk: int, dtype: torch.dtype) -> None:
    media, _, table = given()
    table = table.to(dtype)
    plain = media.clone().requires_grad_()
    unit, words = plain / plain.norm(dim=1, keepdim=True), table.double() / table.double().norm(dim=1, keepdim=True)
    (unit @ words.T).pow(3).sum().backward()
    media.requires_grad_()
    found = cosines(media, table, chunk)
    found.pow(3).sum().backward()  # type: ignore[no-untyped-call]
    assert_close(found, unit @ words.T)
    assert_close(media.grad, plain.grad)


def test_half_precision_and_autocast_leave_cosines_whole() -> None:
    """A cosine of 1 at ε = τ = 0.01: e¹⁰⁰, which no float32 holds. A word of zeros, as padding has, harms nothing."""
    table = torch.cat([torch.eye(4), -torch.eye(4), torch.zeros(1, 4)]).bfloat16()
    media, captions = (torch.eye(4)[:3].bfloat16().requires_grad_() for _ in range(2))
    for options in (
        {"iterations": None},
        {"iterations": 3},
        {"as_released": True, "marginal": torch.full((9,), 1 / 9)},
    ):
        predict = AssignmentPrediction(table, **options)
        with torch.autocast("cpu", torch.bfloat16):
            found = predict(media, captions)
        found.losses.sum().backward()  # type: ignore[no-untyped-call]
        assert found.losses.dtype == torch.float32
        assert found.losses.isfinite().all()
        assert np.isfinite(found.residual)
        assert media.grad is not None
        assert media.grad.isfinite().all()
    exact, _, words = given()
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(cosines(exact.float(), words.float()), cosines(exact, words).float(), atol=1e-6, rtol=0)


def test_captions_that_are_frozen_teach_the_media_alone() -> None:
    media, captions, table = given()
    media.requires_grad_()
    AssignmentPrediction(table)(media, captions).losses.sum().backward()  # type: ignore[no-untyped-call]
    assert media.grad is not None
    assert captions.grad is None
    assert table.grad is None


def test_a_perfect_match_costs_less_than_another() -> None:
    _, captions, table = given()
    predict = AssignmentPrediction(table, temperature=0.05, epsilon=0.05, iterations=None)
    matched, other = predict(captions, captions), predict(captions.flip(0), captions)
    assert matched.losses.mean() < other.losses.mean()


OPTIONS: list[dict[str, Any]] = [{"iterations": 3}, {"iterations": None}, {"as_released": True}]
SHARES = (4, 1)
"""Samples of each of two processes."""


def apart(_: str) -> list[list[list[float]]]:
    """Losses and gradients of both processes, one after the other, for each of the options."""
    media, captions, table = given(samples=sum(SHARES))
    found = []
    with together() as ranks:
        first = sum(SHARES[: ranks.rank])
        mine = slice(first, first + SHARES[ranks.rank])
        for options in OPTIONS:
            parts = [each[mine].clone().requires_grad_() for each in (media, captions)]
            predict = AssignmentPrediction(table, weights(K, 3), epsilon=LOOSE, **options)
            losses = predict(parts[0], parts[1], ranks).losses
            losses.sum().backward()  # type: ignore[no-untyped-call]
            each = [losses.detach()[:, None], *(part.grad for part in parts if part.grad is not None)]
            found.append([torch.cat(ranks.rows(one)).flatten().tolist() for one in each])
    return found


def test_two_processes_assign_together(tmp_path: Path) -> None:
    media, captions, table = given(samples=sum(SHARES))
    found = processes.together(apart, "", folder=tmp_path / "two")
    for options, (losses, *gradients) in zip(OPTIONS, found, strict=True):
        parts = [each.clone().requires_grad_() for each in (media, captions)]
        predict = AssignmentPrediction(table, weights(K, 3), epsilon=LOOSE, **options)
        whole = predict(parts[0], parts[1]).losses
        whole.sum().backward()  # type: ignore[no-untyped-call]
        assert_close(torch.tensor(losses, dtype=torch.float64), whole.detach())
        for part, gradient in zip(parts, gradients, strict=True):
            assert part.grad is not None
            assert_close(torch.tensor(gradient, dtype=torch.float64), part.grad.flatten())
        if "as_released" not in options:
            alone = predict(media[:4], captions[:4])
            assert (alone.losses - whole[:4]).abs().max() > 1e-3, "expected assignments to depend on the joint batch"
