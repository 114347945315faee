"""Retrieval among a pool: the rank of the best right candidate, recall@k, and what guessing reaches.

A query may have several right candidates; its rank is that of the nearest of them, 1 for the nearest of all. Among
candidates that are equally near, wrong ones stand first, so that a space in which all is one point finds nothing.

Symbols: N queries, P candidates, r right candidates of a query.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Numbers = NDArray[np.int64]

AT_ONCE = 2**24
"""Similarities in memory at a time: 64 MB in float32, several times over."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Of N queries: ``ranks`` (N,) from 1 on, and ``nearest`` (N,), the number of the candidate on top."""

    ranks: Numbers
    nearest: Numbers


def ranking(near: Callable[[slice], Tensor], right: Tensor, shape: tuple[int, int], *, depth: int = 1) -> Ranking:
    """Ranks the candidates of every query, a stretch of queries at a time.

    Args:
        near: from a stretch of queries to their similarities (stretch, P).
        right: (pairs, 2), a query's number and a right candidate's; every query has at least one.
        shape: (N, P).
        depth: how many numbers ``near`` makes for one similarity.
    """
    queries, candidates = shape
    step = max(1, AT_ONCE // (candidates * depth))
    ranks, nearest = np.empty(queries, np.int64), np.empty(queries, np.int64)
    for start in range(0, queries, step):
        part = slice(start, min(start + step, queries))
        found = near(part).float()
        rows, columns = right[(right[:, 0] >= part.start) & (right[:, 0] < part.stop)].to(found.device).unbind(1)
        true = torch.zeros_like(found, dtype=torch.bool)
        true[rows - start, columns] = True
        best = found.masked_fill(~true, -torch.inf).amax(dim=1, keepdim=True)
        in_front = ~(found < best) & ~true  # not-a-number is never far away
        ranks[part] = (in_front.sum(dim=1) + 1).cpu().numpy()
        nearest[part] = found.argmax(dim=1).cpu().numpy()
    return Ranking(ranks, nearest)


def chance_recall(right: Numbers, candidates: int, k: int) -> float:
    """Recall@k expected of a random order: the mean over queries of 1 − C(P − r, k) / C(P, k).

    Args:
        right: (N,), r of each query.
    """
    drawn = np.arange(min(k, candidates))
    misses = np.clip(candidates - right[:, None] - drawn, 0, None) / (candidates - drawn)
    return float(1 - misses.prod(axis=1).mean())


def chance_median(right: Numbers, candidates: int) -> float:
    """The median of the ranks of all queries together in random orders."""
    drawn = np.arange(candidates)
    many, often = np.unique(right, return_counts=True)
    later = np.zeros(candidates)  # the share of ranks above 1, 2 … P
    for one, times in zip(many, often, strict=True):
        later += times * np.cumprod(np.clip(candidates - one - drawn, 0, None) / (candidates - drawn))
    later /= len(right)
    below, above = ((later > limit).argmin() for limit in (0.5 + 1e-9, 0.5 - 1e-9))
    return float(below + above) / 2 + 1
