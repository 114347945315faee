"""How far perceptual tokens are from the words of their caption: transport between the two sets of vectors.

UNITER: UNiversal Image-TExt Representation Learning
Yen-Chun Chen, Linjie Li, Licheng Yu, Ahmed El Kholy, Faisal Ahmed, Zhe Gan, Yu Cheng, Jingjing Liu, arXiv 1909.11740
(word-region alignment: IPOT, β = 0.5, 50 steps; its loss is the distances of pairs that match less those of pairs that
do not, by 0.1)

Symbols: B pairs, M perceptual tokens, L words, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmbridge.transport.divergence import cosine_cost
from mmbridge.transport.ipot import ipot
from mmbridge.transport.plan import Transport, uniform

Planner = Callable[[Tensor, Tensor, Tensor], Transport]
"""Costs (B, M, L) and marginals (B, M) and (B, L) to a plan."""


@dataclass(frozen=True, slots=True)
class TokenTransport:
    """``distances`` (B,): ⟨C, P⟩ of each pair, zero where a side is empty; ``plan`` P (B, M, L); ``residual`` (B,)."""

    distances: Tensor
    plan: Tensor
    residual: Tensor


def uniter(cost: Tensor, rows: Tensor, columns: Tensor) -> Transport:
    """IPOT as UNITER runs it: β = 0.5, 50 steps."""
    return ipot(cost, 0.5, rows, columns, iterations=50)


def token_transport(
    tokens: Tensor, mask: Tensor, words: Tensor, words_mask: Tensor, planner: Planner = uniter
) -> TokenTransport:
    """The cost of carrying the tokens to the words, where a step costs 1 − cos and all weigh alike.

    Gradients go through the cost; the plan is held fixed, as the envelope theorem has it for a plan of least cost.
    Computed in float32, outside autocast.

    Args:
        tokens: (B, M, D).
        mask: (B, M), true where a token is real; what the others hold, NaN included, reaches nothing.
        words: (B, L, D).
        words_mask: (B, L).
        planner: what makes plans of costs, such as ``lambda c, a, b: sinkhorn(c, 0.05, a, b)``.
    """
    tokens, words = tokens.where(mask[..., None], 0), words.where(words_mask[..., None], 0)
    cost = cosine_cost(tokens, words)
    with torch.no_grad():
        found = planner(cost, uniform(mask), uniform(words_mask))
    return TokenTransport((cost * found.plan).sum((-2, -1)), found.plan, found.residual)
