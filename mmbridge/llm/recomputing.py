"""Decoder blocks that keep less for the backward pass, and compute again there what they did not keep.

Training Deep Nets with Sublinear Memory Cost
Tianqi Chen, Bing Xu, Chiyuan Zhang, Carlos Guestrin, arXiv 1604.06174 (whole blocks)

Reducing Activation Recomputation in Large Transformer Models
Vijay Korthikanti, Jared Casper, Sangkug Lym, Lawrence McAfee, Michael Andersch, Mohammad Shoeybi, Bryan Catanzaro,
arXiv 2205.05198 (parts of them)

Differs from the second: fused attention keeps no map that would be worth recomputing, so it is norms, activations and
rotary embeddings that are computed again, and what matrices and attention make that is kept.

Gradients are the same to the bit where the kernels are. Batches without gradients run as ever.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

_aten = torch.ops.aten
_PRODUCTS = [
    _aten.mm.default,
    _aten.addmm.default,
    _aten.bmm.default,
    _aten.baddbmm.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
]
"""The operations whose results are kept where only the rest is computed again."""

During = Callable[[], AbstractContextManager[None]]
Contexts = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Recompute:
    """Of the first ``blocks`` only the inputs are kept; of the others, where it is ``selective``, what their matrices
    and attention make, and else everything."""

    blocks: int = 0
    selective: bool = False


NOTHING = Recompute()


@contextmanager
def recomputed(layers: Sequence[nn.Module], what: Recompute, during: During) -> Iterator[None]:
    """While inside, forward passes of these blocks keep no more than ``what`` says.

    Args:
        layers: without the last one, which is computed only where it is asked and holds little.
        during: opened around what is computed again, for hooks that read the batch in work.
    """
    if what == NOTHING or not torch.is_grad_enabled():
        yield
        return
    with ExitStack() as stack:
        for number, layer in enumerate(layers):
            if number < what.blocks or what.selective:
                contexts = _whole if number < what.blocks else _selective
                stack.enter_context(_checkpointed(layer, partial(contexts, during)))
        yield


@contextmanager
def _checkpointed(layer: nn.Module, contexts: Callable[[], Contexts]) -> Iterator[None]:
    """While inside, a block's forward pass is torch's checkpointed one; hooks around the block stay outside of it."""
    own = layer.__dict__.get("forward")
    run = partial(checkpoint, layer.forward, use_reentrant=False, context_fn=contexts)
    setattr(layer, "forward", run)  # noqa: B010
    try:
        yield
    finally:
        if own is None:
            del layer.forward
        else:
            setattr(layer, "forward", own)  # noqa: B010


def _whole(during: During) -> Contexts:
    return nullcontext(), during()


def _selective(during: During) -> Contexts:
    forward, again = create_selective_checkpoint_contexts(_PRODUCTS)  # type: ignore[no-untyped-call]
    return forward, _both(again, during())


@contextmanager
def _both(first: AbstractContextManager[Any], second: AbstractContextManager[Any]) -> Iterator[None]:
    with first, second:
        yield
