"""From the features of a medium's encoders to the perceptual tokens the LLM reads.

Symbols: V views, B media, N → M tokens of a view, D_enc → D_c → D_llm widths.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmbridge.connectors.base import Instructed, Instructions, PerceptualTokens, Resampler, Words
from mmbridge.connectors.config import ConnectorConfig
from mmbridge.connectors.joining import apart, joined, joined_facts
from mmbridge.connectors.tiles import pack, packed_length
from mmbridge.encoders.base import EncoderFacts, Features, Tiling
from mmbridge.errors import RecipeError


class Connector(nn.Module):
    """Hands encoders' features to a resampler, projects, adds positions, arranges tiles and ends each medium.

    Parameters are named ``resampler.*``, ``projector.*``, ``position`` (tokens of a view, D_llm), ``newline`` (D_llm)
    and ``end_token`` (D_llm), those the config asks for. They start as torch starts them; positions start at zero,
    newline and end token from a normal distribution of variance 1/D_llm, as LLaVA-NeXT's newline does. ``sources`` are
    what the resampler reads, which is one joined of all encoders or each by itself, ``facts`` what it makes of them.
    """

    def __init__(self, config: ConnectorConfig, facts: Sequence[EncoderFacts], words: Words, key: str) -> None:
        super().__init__()
        width = words.width
        self.key, self.instructed = key, config.instructed
        self._apart = config.resampler.apart
        self.sources = tuple(facts) if self._apart else (joined_facts(facts, config.encoders, key),)
        self.resampler: Resampler = config.resampler.build(*self.sources, key=f"{key}.resampler")
        self.facts = self.resampler.facts(self.sources[0])
        self.projector = config.projector.build(self.facts.width, words)
        zeros = torch.zeros(self.facts.tokens, width)
        self.position = nn.Parameter(zeros) if config.position == "learned" else None
        self.newline = _token(width) if config.newline else None
        self.end_token = _token(width) if config.end_token else None

    def forward(self, *features: Features, instructions: Instructions | None = None) -> PerceptualTokens:
        """The perceptual tokens of B media, or of the looks at them.

        Args:
            features: of each encoder, in the recipe's order, over the same media.
            instructions: of a connector that reads them.

        Raises:
            RecipeError: the encoders cut the media differently, or a resampler that needs full grids met a ragged one.
        """
        sampled = self._sampled(self.handed(features), instructions)
        values: Tensor = self.projector(sampled.values.to(next(self.parameters()).dtype))
        if self.position is not None:
            values = values + self._positions(sampled)
        values, mask = self._arranged(values, sampled)
        if self.end_token is not None:
            values, mask = _ended(values, mask, self.end_token)
        return PerceptualTokens(values, mask)

    def length(self, tiling: Tiling | None) -> int:
        """How many perceptual tokens a medium of full grids becomes.

        Raises:
            RecipeError: it is tiled and tokens stand before the grid.
        """
        if tiling is None:
            return self.facts.tokens + (self.newline is not None) + (self.end_token is not None)
        self._refuse_prefix()
        return packed_length(self.facts.grid, tiling, self.newline is not None) + (self.end_token is not None)

    def handed(self, features: Sequence[Features]) -> tuple[Features, ...]:
        """What the resampler reads of several encoders over the same media: ``sources`` says what each is.

        Raises:
            RecipeError: the encoders cut the media differently.
        """
        return apart(features, self.key) if self._apart else (joined(features, self.key),)

    def _sampled(self, features: Sequence[Features], instructions: Instructions | None) -> Features:
        assert (instructions is not None) == self.instructed, (
            "expected instructions where queries read them, only there"
        )
        if instructions is None:
            return self.resampler(*features)
        assert isinstance(self.resampler, Instructed)
        (together,) = features
        return self.resampler.instructed(together, instructions)

    def _positions(self, features: Features) -> Tensor:
        """(1 or V, M, D_llm): each token's row of the table, found by its place in the grid."""
        assert self.position is not None
        if all(grid == self.facts.grid for grid in features.grids):
            return self.position[None]
        table, place = self.facts.grid, torch.arange(self.facts.tokens, device=self.position.device)
        prefix, places = place[: features.prefix], place[features.prefix :].view(table.time, table.height, table.width)
        rows = []
        for grid in features.grids:
            if grid.time > table.time or grid.height > table.height or grid.width > table.width:
                problem = f"expected grids within {table}, found {grid}"
                raise RecipeError(f"{self.key}.position", problem, "set position to none")
            rows.append(torch.cat([prefix, places[: grid.time, : grid.height, : grid.width].flatten()]))
        return self.position[pad_sequence(rows, batch_first=True)]

    def _arranged(self, values: Tensor, features: Features) -> tuple[Tensor, Tensor]:
        """Views (V, M, D_llm) to media (B, M', D_llm), and the mask."""
        mask, newline = features.mask, self.newline
        if all(tiling is None for tiling in features.tilings):
            return (values, mask) if newline is None else _ended(values, mask, newline)
        self._refuse_prefix()
        media, masks, start = [], [], 0
        for tiling in features.tilings:
            stop = start + (1 if tiling is None else tiling.views)
            rows, real = values[start:stop], mask[start:stop]
            if tiling is not None:
                rows, real = pack(rows, real, features.grids[start], tiling, newline)
            elif newline is not None:
                rows, real = (part[0] for part in _ended(rows, real, newline))
            else:
                rows, real = rows[0], real[0]
            media.append(rows)
            masks.append(real)
            start = stop
        return pad_sequence(media, batch_first=True), pad_sequence(masks, batch_first=True)

    def _refuse_prefix(self) -> None:
        if self.facts.prefix:
            problem = f"expected tiles of the grid's tokens alone, found {self.facts.prefix} in front of them"
            raise RecipeError(f"{self.key}.encoders", problem, "set the encoder's tokens to patches")


def _token(width: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(width) * width**-0.5)


def _ended(values: Tensor, mask: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
    """(B, M, D) and (B, M) with one more real token after every medium's last."""
    end = token.to(values.dtype).expand(len(values), 1, -1)
    return torch.cat([values, end], dim=1), torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
