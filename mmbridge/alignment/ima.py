"""The IMA score of whole arrays, in its pooled readings, and what else is told of single states.

Implicit Multimodal Alignment: On the Generalization of Frozen LLMs to Multimodal Inputs
Mustafa Shukor, Matthieu Cord, arXiv 2405.16700

Readings by single tokens are in ``token_cosines``, cone and gap in ``gap``. Streams of samples are summed by
``running`` and told by ``default_scores``, to the same figures.

Symbols: N samples, T states, D width.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from mmbridge.alignment.clouds import checked
from mmbridge.errors import DataError

Pairs = Literal["all", "matched", "other"]
"""Of samples i and j: all, i = j alone, or i ≠ j alone."""


def cosines(perceptual: Tensor, text: Tensor, *, centred: bool = False) -> Tensor:
    """(N, N) in float64: cos(P̄_i, T̄_j); centred, cos(P̄_i − mean P̄, T̄_j − mean T̄).

    Args:
        perceptual, text: (N, D), the mean states of each sample's perceptual tokens and of its text. For the reading
            that the paper's code has, the former are those at the LLM's input.
        centred: without what all samples of a side have in common.

    Raises:
        DataError: some states are not finite, or there are none.
    """
    for each in (perceptual, text):
        checked(each, "samples", 1)
    sides = [each.double() - (each.double().mean(dim=0) if centred else 0) for each in (perceptual, text)]
    first, second = (functional.normalize(each, dim=-1, eps=1e-12) for each in sides)
    return first @ second.mT


def ima(perceptual: Tensor, text: Tensor, pairs: Pairs = "all", *, centred: bool = False) -> float:
    """1/N² Σ_ij cos(P̄_i, T̄_j), 1/N Σ_i cos(P̄_i, T̄_i) or 1/(N(N−1)) Σ_{i≠j} cos(P̄_i, T̄_j): between −1 and 1.

    Args:
        perceptual, text, centred: as for ``cosines``.
        pairs: which.

    Raises:
        DataError: as ``cosines``, or there are no other pairs.
    """
    table = cosines(perceptual, text, centred=centred)
    own = torch.eye(len(table), dtype=torch.bool, device=table.device)
    if pairs == "other" and len(table) < 2:
        raise DataError("samples", f"expected at least 2, found {len(table)}", "measure more samples")
    chosen = {"all": table.flatten(), "matched": table[own], "other": table[~own]}[pairs]
    return float(chosen.mean())


def change(states: Tensor, before: Tensor) -> float:
    """1/T Σ_t cos(x_t, x'_t): how much a sample's states (T, D) are what they were (T, D) some blocks before.

    Raises:
        DataError: some states are not finite, or there are none.
    """
    for each in (states, before):
        checked(each, "states", 1)
    return float(functional.cosine_similarity(states.double(), before.double(), dim=-1, eps=1e-12).mean())


def median_norm(states: Tensor) -> float:
    """The median of |x_t| over a sample's states (T, D); of an even number, midway between the two in the middle.

    Raises:
        DataError: some states are not finite, or there are none.
    """
    checked(states, "states", 1)
    return float(torch.linalg.vector_norm(states.double(), dim=-1).quantile(0.5))
