"""Distributions over an LLM's words: how undecided each is, how far apart two are.

Implicit Multimodal Alignment: On the Generalization of Frozen LLMs to Multimodal Inputs
Mustafa Shukor, Matthieu Cord, arXiv 2405.16700 (entropy, and KL of perceptual from text tokens)

Symbols: V words; log p (…, V) as ``Lens`` yields them, in nats; 0 log 0 = 0.

differs from the released code: a medium and its text are compared by the means of their tokens' distributions, where
there tokens of lists of unequal length are paired by place; and words that only one side ever says are not left out,
so that KL can be infinite.
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
