"""Random features to resample and project."""

from collections.abc import Sequence

import torch

from mmbridge.encoders.base import EncoderFacts, Features, Grid, Tiling


def features(
    *grids: Grid, width: int = 6, prefix: int = 0, tilings: Sequence[Tiling | None] | None = None, seed: int = 0
) -> Features:
    """One view per grid, padded with NaN, so that a leak from a padded token cannot stay hidden."""
    draw = torch.Generator().manual_seed(seed)
    most = prefix + max(grid.cells for grid in grids)
    values = torch.randn(len(grids), most, width, generator=draw)
    mask = torch.arange(most) < torch.tensor([prefix + grid.cells for grid in grids])[:, None]
    values = values.masked_fill(~mask[..., None], float("nan"))
    return Features(values, mask, grids, tuple(tilings or (None,) * len(grids)), prefix)


def facts(grid: Grid, width: int = 6, prefix: int = 0) -> EncoderFacts:
    return EncoderFacts(width, grid, prefix)
