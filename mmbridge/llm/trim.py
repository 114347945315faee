"""The last layer computed only where its output is read.

Behind the last layer's keys and values everything works position by position: its queries, what is done with the
attention's output, its feed-forward, the final norm, the head. Where nothing is predicted, nobody reads the result.
Those maps are given the positions asked for alone; elsewhere their output is zero.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

_QUERIES_AND_OUTPUT = {"q_proj", "o_proj", "out_proj", "dense"}
_KEYS = ("k_proj", "v_proj")


@contextmanager
def only_at(layer: nn.Module, positions: Tensor) -> Iterator[None]:
    """While inside, a decoder block computes what its keys and values do not need at these positions only.

    Args:
        layer: the block.
        positions: (U,) of its (B·T) positions, ascending.
    """
    handles = []
    for module in position_wise(layer):
        shape: list[torch.Size] = []

        def gather(_: nn.Module, args: tuple[Any, ...], shape: list[torch.Size] = shape) -> tuple[Any, ...]:
            states: Tensor = args[0]
            shape[:] = [states.shape[:-1]]
            return (states.flatten(0, -2).index_select(0, positions)[None], *args[1:])

        def scatter(_: nn.Module, __: Any, output: Any, shape: list[torch.Size] = shape) -> Any:
            values: Tensor = output[0] if isinstance(output, tuple) else output
            whole = values.new_zeros(shape[0].numel(), values.shape[-1]).index_copy(0, positions, values.flatten(0, -2))
            whole = whole.view(*shape[0], -1)
            return (whole, *output[1:]) if isinstance(output, tuple) else whole

        handles += [module.register_forward_pre_hook(gather), module.register_forward_hook(scatter)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def position_wise(layer: nn.Module) -> list[nn.Module]:
    """The parts of a block that work position by position: feed-forward, queries, output.

    Attention that does not keep its keys and values apart from the rest is left as it is; so is a block in which
    nothing attends.
    """
    parts = [child for child in layer.children() if maps(child)]
    attending = [child for child in parts if attends(child)]
    found = [child for child in parts if attending and child not in attending]
    for child in attending:
        inside = dict(child.named_children())
        if all(key in inside for key in _KEYS):
            found += [module for name, module in inside.items() if name in _QUERIES_AND_OUTPUT]
    return found


def attends(part: nn.Module) -> bool:
    """Whether a part of a block is its attention: it, or something in it, knows the number of its layer."""
    return any(hasattr(module, "layer_idx") for module in part.modules())


def maps(part: nn.Module) -> bool:
    """Whether a part of a block has weights to multiply by: attention or feed-forward, not a norm."""
    return any(isinstance(each, nn.Linear | Conv1D) for each in part.modules())
