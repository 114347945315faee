"""Neighbouring tokens joined on the width: k of a row, or a square of the grid (pixel shuffle).

MiniGPT-v2: large language model as a unified interface for vision-language multi-task learning
Jun Chen, Deyao Zhu, Xiaoqian Shen, Xiang Li, Zechun Liu, Pengchuan Zhang, Raghuraman Krishnamoorthi, Vikas Chandra,
Yunyang Xiong, Mohamed Elhoseiny, arXiv 2310.09478 (4 adjacent tokens)

Building and better understanding vision-language models: insights and future directions
Hugo Laurençon, Andrés Marafioti, Victor Sanh, Léo Tronchon, arXiv 2408.12637 (Idefics3, pixel shuffle)

differs from the papers: MiniGPT-v2 joins tokens in reading order even where that wraps from one row to the next; here
a row that does not divide is refused. Both are the same for its own 32×32 grid.
"""

from torch import nn

from mmbridge.connectors.windows import Window, shrunk, windows
from mmbridge.encoders.base import EncoderFacts, Features, Grid
from mmbridge.errors import RecipeError


class Concat(nn.Module):
    """The tokens of a window side by side, first token first: D_c = k × D_enc.

    A window is real if any of its tokens is; the places of those that are not hold zeros. So a row (or a sound) that
    ends early ends in a token that is zero on the right.
    """

    def __init__(self, window: Window) -> None:
        super().__init__()
        self.window = window

    def forward(self, features: Features) -> Features:
        seen = windows(features, self.window)
        return Features(seen.values.flatten(2), seen.mask.any(2), seen.grids, features.tilings)

    def facts(self, facts: EncoderFacts) -> EncoderFacts:
        time, height, width = self.window
        return EncoderFacts(facts.width * time * height * width, self.grid(facts.grid))

    def grid(self, grid: Grid) -> Grid:
        return shrunk(grid, self.window)


class PixelShuffle(Concat):
    """The tokens of a square side by side, row by row as in Idefics3: D_c = factor² × D_enc.

    Raises:
        RecipeError: a square is neither wholly real nor wholly padding.
    """

    def __init__(self, window: Window, key: str) -> None:
        super().__init__(window)
        self.key = key

    def forward(self, features: Features) -> Features:
        seen = windows(features, self.window)
        if bool((seen.mask.any(2) != seen.mask.all(2)).any()):
            side = f"{self.window[1]}×{self.window[2]}"
            problem = f"expected full grids, found a square of {side} tokens of which some are padding"
            raise RecipeError(self.key, problem, "use average_pool or concat, which take ragged grids")
        return Features(seen.values.flatten(2), seen.mask.any(2), seen.grids, features.tilings)
