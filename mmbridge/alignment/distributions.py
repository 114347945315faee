"""Distributions over an LLM's words: how undecided each is, how far apart two are, and the mean of thousands.

Implicit Multimodal Alignment: On the Generalization of Frozen LLMs to Multimodal Inputs
Mustafa Shukor, Matthieu Cord, arXiv 2405.16700 (entropy, and KL of perceptual from text tokens)

Symbols: V words; log p (…, V) as ``Lens`` yields them, in nats; 0 log 0 = 0.

differs from the released code: groups are compared by the means of their distributions, KL(p̄_P ‖ p̄_T), where there
tokens of lists of unequal length are paired by place; and words that only one side ever says are not left out, so that
KL can be infinite.
"""

import math

import torch
from torch import Tensor


def entropy(log_p: Tensor) -> Tensor:
    """H(p) = −Σ_v p log p: (…), between 0, where one word is certain, and log V, where all are as likely."""
    terms: Tensor = torch.special.entr(log_p.exp())
    return terms.sum(-1)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ_v p log(p / q): (…), 0 where they are the same, infinite where q rules out what p does not."""
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), 0).sum(-1)


def jensen_shannon(log_p: Tensor, log_q: Tensor) -> Tensor:
    """(KL(p ‖ m) + KL(q ‖ m)) / 2 for m = (p + q) / 2: (…), between 0 and log 2, the same either way round."""
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return (kl(log_p, log_m) + kl(log_q, log_m)) / 2


class MeanDistribution:
    """The mean of the distributions of one group, and of their entropies, in V numbers however many there are."""

    def __init__(self) -> None:
        self._sum, self._entropy, self.count = torch.zeros(0, dtype=torch.float64), 0.0, 0

    def add(self, log_p: Tensor) -> None:
        """Take in T ≥ 0 distributions (T, V)."""
        total = log_p.exp().sum(0, dtype=torch.float64)
        self._sum = self._sum.to(total.device) + total if self.count else total
        self._entropy += float(entropy(log_p).sum(dtype=torch.float64))
        self.count += len(log_p)

    @property
    def log_p(self) -> Tensor:
        """(V,) in float64: log p̄ of the mean distribution p̄ = 1/T Σ p. ``entropy`` of it tells how varied they are."""
        return (self._sum / self._sum.sum()).log()

    @property
    def entropy(self) -> float:
        """1/T Σ H(p): how undecided they are each."""
        return self._entropy / self.count
