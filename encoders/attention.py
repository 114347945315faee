"""Rows of an attention map, computed from the queries and keys that a block itself uses.

Symbols: V views, h heads, N tokens, d a head's width, Q the tokens asked about.

The whole map is never formed: the rows asked for are taken where the block hands its queries and keys to torch, after
every norm and rotation the model puts on them, so that no model's own wiring has to be known here.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class AttentionRows(TorchFunctionMode):
    """While active, records ``rows`` (V, h, Q, N) from one block's attention; ``None`` until that block has run."""

    def __init__(self, block: nn.Module, queries: Sequence[int]) -> None:
        super().__init__()
        self.rows: Tensor | None = None
        self._block = block
        self._queries = list(queries)
        self._inside = False

    def __enter__(self) -> Self:
        before = self._block.register_forward_pre_hook(lambda *_: self._pass(True))
        self._hooks = [before, self._block.register_forward_hook(lambda *_: self._pass(False))]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def _pass(self, inside: bool) -> None:
        self._inside = inside

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._inside and self.rows is None:
            if func is functional.scaled_dot_product_attention:
                self.rows = self._scaled(*args, **kwargs)
            elif func is functional.multi_head_attention_forward:  # torch.nn.MultiheadAttention
                self.rows = self._packed(*args, **kwargs)
        return func(*args, **kwargs)

    def _scaled(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **options: Any
    ) -> Tensor | None:
        """(V, h, N, d) queries and keys. A mask or grouped heads, which no encoder here has, are left alone."""
        if attn_mask is not None or options.get("is_causal") or query.shape[1] != key.shape[1]:
            return None
        return _softmaxed(query[:, :, self._queries], key, options.get("scale"))

    def _packed(self, query: Tensor, key: Tensor, value: Tensor, _: int, heads: int, *rest: Any, **__: Any) -> Tensor:
        """(N, V, D) inputs, with the projections to queries, keys and values stacked in one weight."""
        weight, bias = rest[:2]
        width = query.shape[-1]
        project = [
            functional.linear(part, weight[at : at + width], None if bias is None else bias[at : at + width])
            for part, at in ((query[self._queries], 0), (key, width))
        ]
        asked, keys = (part.reshape(*part.shape[:2], heads, -1).permute(1, 2, 0, 3) for part in project)  # (V, h, ·, d)
        return _softmaxed(asked, keys, None)


def _softmaxed(query: Tensor, key: Tensor, scale: float | None) -> Tensor:
    """(V, h, Q, d) and (V, h, N, d) to (V, h, Q, N); the softmax in float32, as the libraries do."""
    logits = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    return logits.softmax(-1, dtype=torch.float32).to(query.dtype)
