"""Assignment prediction in loops over single numbers, in NumPy, and the published loops."""

from typing import Any

import numpy as np


def looped_cosines(vectors: np.ndarray, table: np.ndarray) -> np.ndarray:
    found = np.zeros((len(vectors), len(table)))
    for i, vector in enumerate(vectors):
        for k, word in enumerate(table):
            found[i, k] = sum(vector * word) / np.sqrt(sum(vector**2)) / length_of(word)
    return found


def length_of(word: np.ndarray) -> float:
    """1 for a word of zeros, as padding is, which is near nothing."""
    return float(np.sqrt(sum(word**2))) or 1.0


def looped_plan(scores: np.ndarray, mu: np.ndarray, epsilon: float, iterations: int) -> np.ndarray:
    """Shares by scaling words, then samples; with thousands of iterations the plan itself."""
    plan: np.ndarray = np.exp(scores / epsilon)
    for _ in range(iterations):
        for k in range(len(mu)):
            plan[:, k] *= mu[k] / plan[:, k].sum() if mu[k] else 0
        for i in range(len(plan)):
            plan[i] *= 1 / len(plan) / plan[i].sum()
    return np.asarray(plan * len(plan))


def looped_released(scores: np.ndarray, mu: np.ndarray, epsilon: float) -> np.ndarray:
    """Words × samples: multiplied by the prior, divided by the column's sum and the number of samples; three times."""
    plan: np.ndarray = np.exp(scores / epsilon).T
    for _ in range(3):
        plan *= mu[:, None]
        plan /= plan.sum(0, keepdims=True)
        plan /= plan.shape[1]
    return np.asarray((plan * plan.shape[1]).T)


def looped_swav(scores: np.ndarray, epsilon: float) -> np.ndarray:
    """SwAV's published loop: prototypes × samples, uniform both ways."""
    plan: np.ndarray = np.exp(scores / epsilon).T
    plan /= plan.sum()
    prototypes, samples = plan.shape
    for _ in range(3):
        plan /= plan.sum(1, keepdims=True)
        plan /= prototypes
        plan /= plan.sum(0, keepdims=True)
        plan /= samples
    return np.asarray((plan * samples).T)


def looped_loss(media: np.ndarray, captions: np.ndarray, table: np.ndarray, shares: Any, tau: float) -> Any:
    """The losses, and their sum's gradients with respect to both; ``shares`` assigns cosines."""
    vectors, losses, gradients = (media, captions), np.zeros(len(media)), []
    scores = [looped_cosines(each, table) for each in vectors]
    q = [shares(each) for each in scores]
    for mine, other in ((0, 1), (1, 0)):
        gradient = np.zeros_like(vectors[mine])
        for i, vector in enumerate(vectors[mine]):
            exponents = np.exp(scores[mine][i] / tau)
            p = exponents / exponents.sum()
            for k, word in enumerate(table):
                losses[i] -= q[other][i, k] * np.log(p[k]) / 2
                unit, length = vector / np.linalg.norm(vector), np.linalg.norm(vector)
                turned = (word / length_of(word) - scores[mine][i, k] * unit) / length
                gradient[i] += (p[k] - q[other][i, k]) / tau * turned / 2
        gradients.append(gradient)
    return losses, gradients
