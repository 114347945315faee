"""Attention written out computes what torch's fused kernel computes, and only where it is quicker."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from mmbridge import cpu_attention
from mmbridge.cpu_attention import LONGEST, NAME, attention, prefer_on_cpu
from tests.tiny import tiny_llm

MODULE: Any = SimpleNamespace(is_causal=True, num_key_value_groups=2)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The queries that are handed to the fused kernel, which does not run."""
    calls: list[Tensor] = []

    def fused(_: Any, query: Tensor, *__: Any, **___: Any) -> tuple[Tensor, None]:
        calls.append(query)
        return query, None

    monkeypatch.setattr(cpu_attention, "sdpa_attention_forward", fused)
    return calls


def inputs(length: int, keys: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    shapes = [(2, 4, length, 8), (2, 2, keys or length, 8), (2, 2, keys or length, 8)]
    query, key, value = (torch.randn(shape, requires_grad=True) for shape in shapes)
    return query, key, value


def test_values_and_gradients_are_those_of_the_fused_kernel() -> None:
    outcomes = []
    for function in (attention, sdpa_attention_forward):
        query, key, value = inputs(50)
        with torch.autocast("cpu", torch.bfloat16):
            found, _ = function(MODULE, query, key, value, None, scaling=0.3)
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
        attention(MODULE, *inputs(length, keys), None)
    assert len(calls) == (not written_out)


def test_a_mask_or_attention_both_ways_goes_to_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    both_ways: Any = SimpleNamespace(is_causal=False)
    with torch.autocast("cpu", torch.bfloat16):
        attention(MODULE, *inputs(20), torch.ones(20, 20, dtype=torch.bool))
        attention(both_ways, *inputs(20), None)
        attention(MODULE, *inputs(20), None, is_causal=False)
    assert len(calls) == 3


@pytest.mark.parametrize("family", ["llama", "qwen3", "opt", "gpt2", "gemma2"])
def test_a_model_gives_the_same_loss(tmp_path: Path, family: str) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_llm(tmp_path, family))
    before = model.config._attn_implementation
    ids = torch.randint(0, 200, (2, 40), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            losses.append(model(input_ids=ids, labels=ids).loss.item())
        prefer_on_cpu(model)
    assert losses[1] == pytest.approx(losses[0], rel=5e-3)
    assert model.config._attn_implementation == (NAME if before == "sdpa" else before)
    text = model.generate(ids[:, :5], max_new_tokens=4, do_sample=False)
    assert text.shape[1] == 9
