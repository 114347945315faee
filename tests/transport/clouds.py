"""Costs, weights and points that the tests of transport share; all from seeds, in float64."""

import numpy as np
import torch
from torch import Tensor


def cosines(n: int, m: int, seed: int = 0, width: int = 16, batch: tuple[int, ...] = ()) -> Tensor:
    """1 − cos between random directions: (*batch, n, m)."""
    first, second = points(n, width, seed, batch), points(m, width, seed + 1, batch)
    first, second = first / first.norm(dim=-1, keepdim=True), second / second.norm(dim=-1, keepdim=True)
    products: Tensor = first @ second.mT
    return 1 - products


def points(n: int, width: int, seed: int, batch: tuple[int, ...] = ()) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(*batch, n, width)))


def weights(n: int, seed: int, batch: tuple[int, ...] = (), zeros: int = 0) -> Tensor:
    """Of total 1, the last of them zero."""
    drawn = torch.from_numpy(np.random.default_rng(seed).uniform(0.2, 1.0, size=(*batch, n)))
    drawn[..., n - zeros :] = 0
    return drawn / drawn.sum(-1, keepdim=True)
