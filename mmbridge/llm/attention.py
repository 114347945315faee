"""Attention over trees: each position of a packed row reads its own tree, and no other.

Symbols: H heads of width dh, T positions of the row, T0 constant ones in front of a tree, P shared ones in it.

transformers lets a model's attention be replaced by a function; everything else of the model stays as it is. A tree
takes two calls of the kernel: its shared positions, then all its samples' own ones, which read the shared ones and
those of their own sample. In the last layer only positions that predict something are asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from mmbridge.context import ForwardContext
from mmbridge.llm.kernel import attend
from mmbridge.llm.splice import placed
from mmbridge.llm.tree import Places

NAME = "mmbridge"
KEYWORD = "trees"
"""Under this name a forward pass carries its ``TreeAttention`` to every layer."""

KeysValues = list[tuple[Tensor, Tensor]]
"""Of each layer, keys and values (1, groups of heads, T0, dh)."""


def take_over(model: PreTrainedModel) -> bool:
    """Puts ``attention`` in place of torch's fused one; a model that uses another is left as it is."""
    if model.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)
    return bool(model.config._attn_implementation == NAME)


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **others: Any
) -> tuple[Tensor, None]:
    """transformers' interface: (B, H, T, dh) queries, keys and values to (B, T, H, dh)."""
    trees: TreeAttention | Recorder | None = others.pop(KEYWORD, None)
    if trees is not None:
        return trees(module, query, key, value, **others), None
    return attend(module, query, key, value, attention_mask, **others), None


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of the kernel for a tree: of the first ``keys``, the queries from ``start`` to ``stop`` read those that
    ``mask`` (queries, keys) says, or all that stand before them."""

    start: int
    stop: int
    keys: int
    mask: Tensor | None


class TreeAttention:
    """What the attention of a packed batch is, for all layers.

    Args:
        context: the batch.
        constant: keys and values of the constant positions, if there are any.
        asked: (U,) positions of the row, ascending, at which the last layer's output is read.
        last: the number of that layer.
    """

    def __init__(self, context: ForwardContext, constant: KeysValues, asked: Places, last: int) -> None:
        self._trees, self._constant, self._last = context.trees, constant, last
        self._asked = placed(asked, context.embeds)
        self._sizes = [tree.length for tree in context.trees]
        begins = np.cumsum([0, *self._sizes])
        rows = np.split(asked, np.searchsorted(asked, begins[1:-1]))
        self._asked_sizes = [len(each) for each in rows]
        self._calls, self._last_calls = list[list[_Call]](), list[list[_Call]]()
        for tree, begin, mine in zip(self._trees, begins, rows, strict=False):
            shared, seen, keys = tree.shared, tree.constant + tree.shared, tree.constant + tree.length
            before = tree.reads(np.arange(shared))[:, :seen] if tree.constant else None
            front = None if before is None else placed(before, context.embeds)
            calls = [_Call(0, shared, seen, front)] if shared else []
            if any(tree.own):
                own = placed(tree.reads(np.arange(shared, tree.length)), context.embeds)
                calls.append(_Call(shared, tree.length, keys, own))
            self._calls.append(calls)
            last_mask = placed(tree.reads(mine - begin), context.embeds)
            self._last_calls.append([_Call(0, len(mine), keys, last_mask)] if len(mine) else [])

    def __call__(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **others: Any) -> Tensor:
        layer: Any = module.layer_idx
        if layer != self._last:
            return torch.cat(self._pieces(module, query, key, value, self._sizes, self._calls, others), dim=1)
        asking = query.index_select(2, self._asked)
        pieces = self._pieces(module, asking, key, value, self._asked_sizes, self._last_calls, others)
        whole = query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3], dtype=pieces[0].dtype)
        return whole.index_copy(1, self._asked, torch.cat(pieces, dim=1))

    def _pieces(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        sizes: Sequence[int],
        calls: Sequence[Sequence[_Call]],
        others: dict[str, Any],
    ) -> list[Tensor]:
        """(1, queries, H, dh) of one call after the other, which are in the order of the row."""
        pieces, layer = [], int(module.layer_idx)  # type: ignore[arg-type]
        parts = zip(
            torch.split(query, [*sizes], 2),
            torch.split(key, self._sizes, 2),
            torch.split(value, self._sizes, 2),
            strict=True,
        )
        for tree, (asks, keys, values), mine in zip(self._trees, parts, calls, strict=True):
            if tree.constant:
                before_keys, before_values = self._constant[layer]
                keys = torch.cat([before_keys.to(keys.dtype), keys], dim=2)
                values = torch.cat([before_values.to(values.dtype), values], dim=2)
            for call in mine:
                queries, seen = asks[:, :, call.start : call.stop], slice(call.keys)
                pieces.append(attend(module, queries, keys[:, :, seen], values[:, :, seen], call.mask, **others))
        return pieces


class Recorder:
    """Plain causal attention that keeps each layer's keys and values."""

    def __init__(self) -> None:
        self.found: KeysValues = []

    def __call__(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **others: Any) -> Tensor:
        assert module.layer_idx == len(self.found)
        self.found.append((key, value))
        return attend(module, query, key, value, None, **others)
