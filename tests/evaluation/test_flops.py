"""Counted FLOPs against the formula for what is run, attention and inference mode included."""

import torch
from torch import nn
from torch.nn import functional

from mmbridge.evaluation.flops import executed_flops


def test_a_linear_layer_is_two_per_multiply_add() -> None:
    layer, inputs = nn.Linear(8, 16), torch.randn(4, 8)
    for context in (torch.no_grad, torch.inference_mode):

        def work(context: type = context) -> None:
            with context():
                layer(inputs)

        assert executed_flops(work) == 2 * 4 * 8 * 16


def test_attention_is_counted_and_not_as_nothing() -> None:
    heads = torch.randn(2, 3, 5, 8)  # batch, heads, positions, width
    found = executed_flops(lambda: functional.scaled_dot_product_attention(heads, heads, heads))
    assert found == 2 * (2 * 2 * 3 * 5 * 5 * 8)


def test_no_torch_work_is_zero() -> None:
    assert executed_flops(lambda: sum(range(10))) == 0
