"""Points that the tests of scores share; all from seeds, in float64."""

import numpy as np
import torch
from torch import Tensor


def points(count: int, width: int, seed: int = 0, shift: float = 0.0) -> Tensor:
    """(count, width), Gaussian about a point ``shift`` off the origin along every axis."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, width)) + shift)


def rotation(width: int, seed: int = 0) -> Tensor:
    """An orthogonal map (width, width)."""
    return torch.from_numpy(np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0])


def permutation(count: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).permutation(count))
