"""The kernel of attention: torch's fused one, or written out where that one is slow.

In bfloat16 on a CPU the fused kernel is slow backwards. Milliseconds of CPU time forward and backward, one thread of an
AMD EPYC with AVX512-BF16, 32 samples, 6 heads of 32:

    T           96   128   160   192   224   256
    fused       43    53    78    62    84   101
    written out 12    16    28    38    98   127

So up to ``LONGEST`` positions it is written out, where autocast is on and gradients are needed.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

LONGEST = 192


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> Tensor:
    """(B, H, Q, dh) queries and (B, groups of heads, K, dh) keys and values to (B, Q, H, dh).

    ``mask`` is true where a query reads a key, (Q, K) or with dimensions for B and H in front; without one, attention
    is causal unless the module or ``is_causal`` says otherwise.
    """
    asks, keys = query.shape[2], key.shape[2]
    causal = others.get("is_causal")
    causal = mask is None and (getattr(module, "is_causal", True) if causal is None else causal)
    known = (mask.dtype == torch.bool) if mask is not None else (causal and asks == keys)
    trains = torch.is_grad_enabled() and torch.is_autocast_enabled("cpu") and query.device.type == "cpu"
    if trains and known and keys <= LONGEST and dropout == 0.0:
        return _written_out(query, key, value, mask, scaling)
    if mask is not None and mask.dim() == 2:
        mask = mask[None, None]
    output, _ = sdpa_attention_forward(module, query, key, value, mask, dropout=dropout, scaling=scaling, **others)
    return output


def _written_out(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    query = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    hidden = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).triu(1) if mask is None else ~mask
    scores = (query @ key.transpose(2, 3)).masked_fill_(hidden, float("-inf"))  # (B, H, Q, K)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32)
    return (weights @ value).transpose(1, 2).contiguous()
