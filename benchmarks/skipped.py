"""Blocks of the LLM that some tokens pass by: they leave with what they came with, and are still attended to as usual.

Skipping Computations in Multimodal LLMs
Mustafa Shukor, Matthieu Cord, arXiv 2410.09454 (their skip of whole blocks)
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmbridge.llm.model import LanguageModel


@contextmanager
def without_blocks(llm: LanguageModel, depths: Sequence[int], *, perceptual: bool) -> Iterator[None]:
    """While inside, perceptual tokens, or all others, pass the blocks of these depths (1 is the first) by."""

    def pass_by(_: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> Any:
        before: Tensor = args[0] if args else keywords["hidden_states"]
        after: Tensor = output[0] if isinstance(output, tuple) else output
        context = llm.context
        assert context is not None
        if context.perceptual.shape == before.shape[:2]:
            passes = context.perceptual == perceptual
        else:  # one token at a time is being written: they are text
            passes = torch.full(before.shape[:2], not perceptual, device=before.device)
        kept = torch.where(passes[..., None], before, after)
        return (kept, *output[1:]) if isinstance(output, tuple) else kept

    with ExitStack() as stack:
        for depth in depths:
            handle = llm.layers[depth - 1].register_forward_hook(pass_by, with_kwargs=True)
            stack.callback(handle.remove)
        yield
