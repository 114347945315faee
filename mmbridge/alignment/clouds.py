"""Clouds of states, the points that scores are of: read a block at a time, refused where they cannot be scored."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mmbridge.errors import DataError

AT_ONCE = 1 << 22
"""Numbers worked on at a time: 16 MB in float32. A block is at least one point, one sample or one pair of samples."""


def blocks(points: Tensor) -> Iterator[Tensor]:
    """Points (N, …) in order, as many at a time as ``AT_ONCE`` allows, in float64."""
    for piece in torch.split(points, max(1, AT_ONCE // max(1, points[:1].numel()))):
        yield piece.double()


def norms(points: Tensor) -> Tensor:
    """Lengths (N, …) in float64 of points (N, …, D)."""
    return torch.cat([points.new_zeros(0, *points.shape[1:-1]), *(piece.norm(dim=-1) for piece in blocks(points))])


def checked(points: Tensor, what: str, least: int = 1) -> Tensor:
    """Their lengths (N,) in float64, once it is known that points (N, D) can be scored.

    Raises:
        DataError: there are fewer than ``least`` of them, or some are not finite; ``what`` names them.
    """
    if len(points) < least:
        raise DataError(what, f"expected at least {least} to score, found {len(points)}", "measure more samples")
    return finite(norms(points), what)


def finite(lengths: Tensor, what: str) -> Tensor:
    """The same lengths.

    Raises:
        DataError: states of some lengths are not finite.
    """
    if bad := int((~lengths.isfinite()).sum()):
        fix = "load the LLM in bfloat16 or float32"
        raise DataError(what, f"expected finite states, found {bad} of {lengths.numel()} that are not", fix)
    return lengths


def directions(points: Tensor, what: str, least: int = 1) -> Iterator[Tensor]:
    """Points (N, D) over their lengths, in blocks in float64; one of no length stays zero.

    Raises:
        DataError: as ``checked``.
    """
    lengths = checked(points, what, least).clamp(min=torch.finfo(torch.float64).tiny)
    start = 0
    for piece in blocks(points):
        yield piece / lengths[start : start + len(piece), None]
        start += len(piece)


def varies(features: Tensor) -> bool:
    """Whether samples (N, D) are more than rounding apart; of those that are not none is nearer than another."""
    values = features.double()
    return bool((values - values.mean(dim=0)).norm() > 1e-5 * values.norm())
