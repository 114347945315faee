"""Visual semantic arithmetic: a medium, less one word, plus another, is nearest to which medium?

Embedding Arithmetic of Multimodal Queries for Image Retrieval
Guillaume Couairon, Matthijs Douze, Matthieu Cord, Holger Schwenk, arXiv 2112.03162 (SIMAT)

Symbols: N media or queries, P media of a pool, M directions of a medium, D width of the space.

Decided here: a medium of several directions, as a Q-Former's queries are, stands at their mean.
"""

from torch import Tensor
from torch.nn import functional


def points(media: Tensor) -> Tensor:
    """Media (N, M, D) as one direction each, (N, D) of length 1."""
    return functional.normalize(media.mean(dim=1), dim=-1)


def moved(media: Tensor, away: Tensor, towards: Tensor, scale: float = 1.0) -> Tensor:
    """(N, D): media, from the texts they are to be less of to those they are to be more of.

    Args:
        media: (N, D), of length 1.
        away, towards: (N, D).
        scale: of the step, which SIMAT calls λ.
    """
    return functional.normalize(media + scale * (towards - away), dim=-1)


def nearest(queries: Tensor, pool: Tensor) -> Tensor:
    """(N,), the number of the direction of a pool (P, D) that has the greatest cosine with each query (N, D)."""
    return (functional.normalize(queries, dim=-1) @ functional.normalize(pool, dim=-1).T).argmax(dim=1)
