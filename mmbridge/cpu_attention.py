"""Attention written out, for training in bfloat16 on a CPU: there torch's fused kernel is slow backwards.

Milliseconds of CPU time forward and backward, one thread of an AMD EPYC with AVX512-BF16, 32 samples, 6 heads of 32:

    T           96   128   160   192   224   256
    fused       43    53    78    62    84   101
    written out 12    16    28    38    98   127

So it is used up to ``LONGEST`` positions, where autocast is on and gradients are needed; all else, generation included,
goes to the fused kernel as before.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME, LONGEST = "mmbridge_cpu", 192


def prefer_on_cpu(model: PreTrainedModel) -> None:
    """Makes a model choose by length; a model whose attention is not torch's fused one is left as it is."""
    if model.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """transformers' interface: (B, heads, T, width) queries, keys and values to (B, T, heads, width)."""
    length = query.shape[2]
    short = length == key.shape[2] and length <= LONGEST
    trains = torch.is_grad_enabled() and torch.is_autocast_enabled("cpu") and query.device.type == "cpu"
    causal = others.get("is_causal")
    causal = attention_mask is None and (getattr(module, "is_causal", True) if causal is None else causal)
    if not (short and trains and causal and dropout == 0.0):
        fused: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
        return fused
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    query = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    scores = (query @ key.transpose(2, 3)).masked_fill_(later, float("-inf"))  # (B, heads, T, T)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32)
    return (weights @ value).transpose(1, 2).contiguous(), None
