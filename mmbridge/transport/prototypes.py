"""Cosines of vectors with every word embedding of an LLM, in bounded memory.

Symbols: B vectors, K words, D width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize

CHUNK = 8192
"""Words that are unpacked at a time: of 4,096 numbers each, 128 MiB in float32."""


def cosines(vectors: Tensor, table: Tensor, chunk: int = CHUNK) -> Tensor:
    """The cosine of every vector with every row of a frozen table, differentiable with respect to the vectors.

    In float64 where the vectors are, else in float32, and outside autocast: divided by 0.01, what bfloat16 makes of a
    cosine is noise. Beside the result, no more than a chunk of the table is unpacked, on the way back likewise.

    Args:
        vectors: (B, D).
        table: (K, D), in any dtype; a row of zeros has cosines of zero.
        chunk: rows of the table at a time.

    Returns:
        (B, K).
    """
    with torch.autocast(vectors.device.type, enabled=False):
        vectors = vectors if vectors.dtype == torch.float64 else vectors.float()
        found: Tensor = _Products.apply(normalize(vectors, dim=-1), table.detach(), chunk)  # type: ignore[no-untyped-call]
    return found


class _Products(torch.autograd.Function):
    """(B, D) and (K, D) to (B, K): with the table's rows at length 1, made again for the backward pass."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, table: Tensor, chunk: int) -> Tensor:
        ctx.save_for_backward(table)
        ctx.chunk = chunk
        found = vectors.new_empty(len(vectors), len(table))
        for start in range(0, len(table), chunk):
            torch.mm(vectors, _unit(table[start : start + chunk], vectors).T, out=found[:, start : start + chunk])
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (table,) = ctx.saved_tensors
        vectors = grad.new_zeros(len(grad), table.shape[1])
        for start in range(0, len(table), ctx.chunk):
            rows = _unit(table[start : start + ctx.chunk], grad)
            torch.addmm(vectors, grad[:, start : start + ctx.chunk], rows, out=vectors)  # torch counts no addmm_
        return vectors, None, None


def _unit(rows: Tensor, like: Tensor) -> Tensor:
    return normalize(rows.to(like.dtype), dim=-1)
