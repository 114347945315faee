"""Attention written out computes what torch's fused kernel computes, and only where it is quicker."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from mmbridge.llm import kernel
from mmbridge.llm.kernel import LONGEST, attend

MODULE: Any = SimpleNamespace(is_causal=True, num_key_value_groups=2)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The queries that are handed to the fused kernel, which does not run."""
    calls: list[Tensor] = []

    def fused(_: Any, query: Tensor, *__: Any, **___: Any) -> tuple[Tensor, None]:
        calls.append(query)
        return query, None

    monkeypatch.setattr(kernel, "sdpa_attention_forward", fused)
    return calls


def inputs(length: int, keys: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    shapes = [(2, 4, length, 8), (2, 2, keys or length, 8), (2, 2, keys or length, 8)]
    query, key, value = (torch.randn(shape, requires_grad=True) for shape in shapes)
    return query, key, value


@pytest.mark.parametrize("masked", [False, True])
def test_values_and_gradients_are_those_of_the_fused_kernel(masked: bool) -> None:
    mask = torch.rand(50, 60) < 0.5 if masked else None
    if mask is not None:
        mask[:, 0] = True  # no query without a key
    outcomes = []
    for written_out in (True, False):
        query, key, value = inputs(50, 60 if masked else None)
        with torch.autocast("cpu", torch.bfloat16):
            if written_out:
                found = attend(MODULE, query, key, value, mask, scaling=0.3)
            else:
                given = None if mask is None else mask[None, None]
                found, _ = sdpa_attention_forward(MODULE, query, key, value, given, scaling=0.3)
        found.float().pow(2).sum().backward()  # type: ignore[no-untyped-call]
        outcomes.append([found.float(), query.grad, key.grad, value.grad])
    for ours, fused in zip(*outcomes, strict=True):
        assert_close(ours, fused, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("length", "keys", "trains", "autocast", "written_out"),
    [
        (LONGEST, None, True, True, True),
        (LONGEST + 1, None, True, True, False),
        (20, 30, True, True, False),
        (20, None, False, True, False),
        (20, None, True, False, False),
    ],
)
def test_everything_else_goes_to_the_fused_kernel(
    monkeypatch: pytest.MonkeyPatch, length: int, keys: int | None, trains: bool, autocast: bool, written_out: bool
) -> None:
    calls = counted(monkeypatch)
    with torch.set_grad_enabled(trains), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        attend(MODULE, *inputs(length, keys), None)
    assert len(calls) == (not written_out)


def test_masks_of_numbers_and_attention_both_ways_go_to_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    both_ways: Any = SimpleNamespace(is_causal=False)
    with torch.autocast("cpu", torch.bfloat16):
        attend(MODULE, *inputs(20), torch.zeros(20, 20))
        attend(both_ways, *inputs(20), None)
        attend(MODULE, *inputs(20), None, is_causal=False)
    assert len(calls) == 3
