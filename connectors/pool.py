"""Average pooling over squares of the grid.

DeCo: Decoupling Token Compression from Semantic Abstraction in Multimodal Large Language Models
Linli Yao, Lei Li, Shuhuai Ren, Lean Wang, Yuanxin Liu, Xu Sun, Lu Hou, arXiv 2405.20985

differs from the paper: it pools to a fixed number of tokens with an adaptive pool; here the square's side is fixed.
Where the grid divides evenly the two are the same.
"""

from torch import nn

from mmbridge.connectors.windows import Window, shrunk, windows
from mmbridge.encoders.base import EncoderFacts, Features, Grid


class AveragePool(nn.Module):
    """The mean of each window's real tokens; a window without any is not real. The width stays."""

    def __init__(self, window: Window) -> None:
        super().__init__()
        self.window = window

    def forward(self, features: Features) -> Features:
        seen = windows(features, self.window)
        count = seen.mask.sum(2).clamp(min=1)
        values = seen.values.sum(2) / count[..., None].to(seen.values.dtype)
        return Features(values, seen.mask.any(2), seen.grids, features.tilings)

    def facts(self, facts: EncoderFacts) -> EncoderFacts:
        return EncoderFacts(facts.width, self.grid(facts.grid))

    def grid(self, grid: Grid) -> Grid:
        return shrunk(grid, self.window)
