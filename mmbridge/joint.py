"""Rows of all processes as one tensor that gradients go back through."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmbridge.ranks import Ranks


def joint(tensor: Tensor, ranks: Ranks) -> Tensor:
    """(N, …) of each process, by rank, one below the other; they may differ in N.

    The gradient of a row is the sum of those that all processes have for it, so that where losses are summed over the
    processes, gradients are those of one process with all rows. All processes go forward and backward through it.
    """
    if ranks.count == 1:
        return tensor
    found: Tensor = _Joint.apply(tensor, ranks)  # type: ignore[no-untyped-call]
    return found


class _Joint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, ranks: Ranks) -> Tensor:
        parts: Sequence[Tensor] = ranks.rows(tensor)
        ctx.ranks, ctx.first, ctx.count = ranks, sum(map(len, parts[: ranks.rank])), len(tensor)
        return torch.cat([*parts])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous()
        ctx.ranks.sum_([total])
        return total[ctx.first : ctx.first + ctx.count], None
