"""A grid seen through windows: what resamplers that join neighbouring tokens have in common.

Symbols: V views, N tokens of a view, D_enc the encoder's width, M windows of a view, K tokens in a window.
A window (t, h, w) spans t steps in time, h rows and w columns. Windows do not overlap and are read row by row, and
so are the tokens inside each.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from mmbridge.encoders.base import EncoderFacts, Features, Grid
from mmbridge.errors import RecipeError

Window = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Windowed:
    """Features by window.

    ``values`` (V, M, K, D_enc), zero where a token is not real; ``mask`` (V, M, K), true where it is; ``grids`` of
    windows, one per view. Views with fewer windows than M end in windows without a real token.
    """

    values: Tensor
    mask: Tensor
    grids: tuple[Grid, ...]


def divided(facts: EncoderFacts, window: Window, key: str) -> Window:
    """The window, once it is known to fit an encoder's grid.

    Raises:
        RecipeError: tokens stand before the grid, or a side of the grid is no multiple of the window's.
    """
    if facts.prefix:
        problem = f"expected the grid's tokens alone, found {facts.prefix} in front of them (CLS or registers)"
        raise RecipeError(key, problem, "set the encoder's tokens to patches")
    sides = (facts.grid.time, facts.grid.height, facts.grid.width)
    if any(side % part for side, part in zip(sides, window, strict=True)):
        problem = f"expected a divisor of the encoder's grid {facts.grid}, found {max(window)}"
        raise RecipeError(key, problem)
    return window


def windows(features: Features, window: Window) -> Windowed:
    """Cuts every view into windows; sides that do not divide end in a window with places that are not real.

    A view's tokens stand first in its row, whatever the other views' grids are. Tokens that are not real come out
    as zeros, so that nothing of them, not even a NaN, reaches a sum or a gradient.
    """
    assert not features.prefix, "a resampler by windows was built for an encoder without prefix tokens"
    grids = tuple(shrunk(grid, window) for grid in features.grids)
    values, mask = features.values, features.mask
    if len(set(features.grids)) == 1:
        return Windowed(*_cut(values, mask, features.grids[0], window), grids)
    cut = [_cut(values[i : i + 1], mask[i : i + 1], grid, window) for i, grid in enumerate(features.grids)]
    most = max(grid.cells for grid in grids)
    rows = [pad(row, (0, 0, 0, 0, 0, most - row.shape[1])) for row, _ in cut]
    masks = [pad(row, (0, 0, 0, most - row.shape[1])) for _, row in cut]
    return Windowed(torch.cat(rows), torch.cat(masks), grids)


def shrunk(grid: Grid, window: Window) -> Grid:
    """The grid of windows over a grid, incomplete ones counted."""
    sides = (grid.time, grid.height, grid.width)
    return Grid(*(-(-side // part) for side, part in zip(sides, window, strict=True)))


def _cut(values: Tensor, mask: Tensor, grid: Grid, window: Window) -> tuple[Tensor, Tensor]:
    """(R, N, D_enc) and (R, N) of views with one grid, to (R, M, K, D_enc) and (R, M, K)."""
    sides, few = (grid.time, grid.height, grid.width), shrunk(grid, window)
    mask = mask[:, : grid.cells].reshape(-1, *sides)
    values = values[:, : grid.cells].reshape(-1, *sides, values.shape[-1]).masked_fill(~mask[..., None], 0)
    short = [(-side) % part for side, part in zip(sides, window, strict=True)]
    if any(short):
        spaces = [space for side in reversed(short) for space in (0, side)]  # pad wants the last dimension first
        values, mask = pad(values, [0, 0, *spaces]), pad(mask, spaces)
    parts = (few.time, window[0], few.height, window[1], few.width, window[2])
    values = values.reshape(-1, *parts, values.shape[-1]).permute(0, 1, 3, 5, 2, 4, 6, 7)
    mask = mask.reshape(-1, *parts).permute(0, 1, 3, 5, 2, 4, 6)  # (R, T, H, W, t, h, w)
    return values.flatten(4, 6).flatten(1, 3), mask.flatten(4, 6).flatten(1, 3)
