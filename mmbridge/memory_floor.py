"""The memory below which a training step of a bridge cannot go unless something is computed twice.

Symbols: T positions of a micro-batch, S of them supervised, V vocabulary, H heads of width dh.

    weights     what every parameter takes in the format it is in, with the constants of quantised ones
    saved       T · L · (the outputs of a layer's matrices + H·dh) numbers: what the backward pass reads again, with
                attention that keeps no map, and norms and activations recomputed. For Llama that is
                L·(2d + 2·H·dh + 2·KV·dh + 2f) a position
    logits      S·V, in the LLM's format and, where that is a shorter one, in float32 as well
    trained     gradient and two moments in float32 for every parameter that trains; with the weight itself, 16 bytes

Not counted: features, what connectors save, input embeddings, the allocator's losses.
"""

from dataclasses import dataclass

import torch

from mmbridge.bridge import Bridge
from mmbridge.llm.flops import LanguageModelFlops
from mmbridge.matrices import matrices
from mmbridge.sizes import stored


@dataclass(frozen=True, slots=True)
class MemoryFloor:
    """Bytes, by what they are for."""

    weights: int
    saved: int
    logits: int
    trained: int

    @property
    def total(self) -> int:
        return self.weights + self.saved + self.logits + self.trained


def memory_floor(bridge: Bridge, positions: int, supervised: int) -> MemoryFloor:
    """The floor of a step whose largest micro-batch has so many positions, so many of them supervised.

    What is frozen and what trains must be settled. Encoders run without gradients and save nothing.
    """
    layers, head = bridge.llm.layers, next(matrices(bridge.llm.head))
    made = sum(matrix.out for matrix in matrices(layers)) + len(layers) * LanguageModelFlops(bridge.llm).attention
    size = bridge.llm.model.dtype.itemsize
    copy = torch.float32.itemsize if size < torch.float32.itemsize else 0
    return MemoryFloor(
        weights=stored(bridge),
        saved=size * positions * made,
        logits=supervised * head.out * (size + copy),
        trained=3 * torch.float32.itemsize * sum(each.numel() for each in bridge.parameters() if each.requires_grad),
    )
