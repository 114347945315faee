"""The resampler that leaves features as they are, prefix tokens included."""

from dataclasses import replace

from torch import nn

from mmbridge.encoders.base import EncoderFacts, Features, Grid


class Identity(nn.Module):
    """N = M and D_enc = D_c. Tokens that are not real become zeros, lest a NaN in them reach a gradient."""

    def forward(self, features: Features) -> Features:
        return replace(features, values=features.values.masked_fill(~features.mask[..., None], 0))

    def facts(self, facts: EncoderFacts) -> EncoderFacts:
        return facts

    def grid(self, grid: Grid) -> Grid:
        return grid
