"""How far two weight masks agree: the intersection over the union of what stays in them.

Implicit Multimodal Alignment: On the Generalization of Frozen LLMs to Multimodal Inputs
Mustafa Shukor, Matthieu Cord, arXiv 2405.16700

IoU(K₁, K₂) = |K₁ ∧ K₂| / |K₁ ∨ K₂|, of a layer; averages are over layers, each with the same weight. Masks that keep
shares k₁ and k₂ of the weights, each without regard to the other, reach k₁k₂ / (k₁ + k₂ − k₁k₂); k / (2 − k) where both
keep k.
"""

import numpy as np

from mmbridge.llm.weight_mask import Bits, WeightMask, ones


def iou(first: WeightMask, second: WeightMask) -> dict[str, float]:
    """Of each layer, between two masks of one LLM."""
    return {name: _ratio(bits, second.bits[name]) for name, bits in first.bits.items()}


def iou_across_depth(mask: WeightMask, stride: int = 2) -> dict[str, float]:
    """Of each layer with the one of its type ``stride`` blocks on, where that has its shape; by the first's name."""
    found = {}
    for name, bits in mask.bits.items():
        block, kind = split(name)
        later = f"{block + stride}.{kind}"
        if later in mask.bits and (len(mask.bits[later]), mask.inputs[later]) == (len(bits), mask.inputs[name]):
            found[name] = _ratio(bits, mask.bits[later])
    return found


def chance(first: WeightMask, second: WeightMask) -> float:
    """The IoU of two masks that keep as much as these, each without regard to the other."""
    one, other = 1 - first.sparsity, 1 - second.sparsity
    return one * other / (one + other - one * other)


def split(layer: str) -> tuple[int, str]:
    """The number of a layer's block, and its type."""
    block, _, kind = layer.partition(".")
    return int(block), kind


def _ratio(first: Bits, second: Bits) -> float:
    """Nothing over nothing is 1: two masks that keep nothing agree."""
    union = ones(np.bitwise_or(first, second))
    return ones(np.bitwise_and(first, second)) / union if union else 1.0
