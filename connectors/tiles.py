"""AnyRes: how the perceptual tokens of a thumbnail and of tiles become one sequence.

LLaVA-NeXT: Improved reasoning, OCR, and world knowledge
Haotian Liu, Chunyuan Li, Yuheng Li, Bo Li, Yuanhan Zhang, Sheng Shen, Yong Jae Lee (2024)
https://llava-vl.github.io/blog/2024-01-30-llava-next/, which has no arXiv id; the numbers are those of transformers'
``LlavaNextModel.pack_image_features``.

The thumbnail's tokens come first. The tiles' grids are put together into the image's, rows or columns that only show
padding are cut off, and what is left is read row by row, each row ended by a newline token if there is one.
"""

from functools import lru_cache

import torch
from torch import Tensor

from mmbridge.encoders.base import Grid, Tiling


def visible(grid: Grid, tiling: Tiling) -> tuple[range, range]:
    """Rows and columns of the tiles' joint grid that show the image.

    Padding is even on both sides. A row that is partly padding stays: a side's padding is rounded down. Queries, which
    stand in one row, have no places in the image: all of them stay.
    """
    if grid.height == 1 < grid.width:
        return range(tiling.rows), range(tiling.columns * grid.width)
    height, width = tiling.rows * grid.height, tiling.columns * grid.width
    if tiling.width / tiling.height > width / height:
        shown = _whole(tiling.height * (width / tiling.width))
        space = (height - shown) // 2
        return range(space, height - space), range(width)
    shown = _whole(tiling.width * (height / tiling.height))
    space = (width - shown) // 2
    return range(height), range(space, width - space)


def _whole(tokens: float) -> int:
    """Rounded down, but not because of a last binary digit."""
    return int(round(tokens, 7))


def packed_length(grid: Grid, tiling: Tiling, newline: bool) -> int:
    """Tokens of a tiled image: the thumbnail's, the visible ones of the tiles, and the newlines."""
    rows, columns = visible(grid, tiling)
    return grid.cells + len(rows) * (len(columns) + newline)


def pack(values: Tensor, mask: Tensor, grid: Grid, tiling: Tiling, newline: Tensor | None) -> tuple[Tensor, Tensor]:
    """One tiled image's perceptual tokens in reading order.

    Args:
        values: (1 + rows × columns, M, D_llm), with M at least the grid's cells.
        mask: (1 + rows × columns, M).
        grid: of every view.
        tiling: how the views after the first tile the image.
        newline: (D_llm), put after each row.

    Returns:
        (L, D_llm) and (L) with L = ``packed_length``.
    """
    flat, real = values[:, : grid.cells].flatten(0, 1), mask[:, : grid.cells].flatten()
    if newline is not None:
        flat = torch.cat([flat, newline[None].to(flat.dtype)])
        real = torch.cat([real, real.new_ones(1)])
    order = _order(grid, tiling, newline is not None).to(flat.device)
    return flat[order], real[order]


@lru_cache(maxsize=1024)
def _order(grid: Grid, tiling: Tiling, newline: bool) -> Tensor:
    """(L) Which of the views' tokens, counted through, stands where; the newline counts as the one after the last."""
    assert grid.time == 1, "only still images are tiled"
    rows, columns = visible(grid, tiling)
    tiles = torch.arange(grid.cells, tiling.views * grid.cells)
    tiles = tiles.view(tiling.rows, tiling.columns, grid.height, grid.width)
    image = tiles.transpose(1, 2).reshape(tiling.rows * grid.height, tiling.columns * grid.width)
    image = image[rows.start : rows.stop, columns.start : columns.stop]
    if newline:
        image = torch.cat([image, image.new_full((len(image), 1), tiling.views * grid.cells)], dim=1)
    return torch.cat([torch.arange(grid.cells), image.flatten()])
