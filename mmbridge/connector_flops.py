"""The floating-point operations that a connector needs for one medium, forward and backward, as closed formulas.

Symbols: N features of a view, D their width, M queries, W width of a Q-Former, L its blocks, C of them attending to the
features, H the width inside its feed-forwards, R tokens that are projected. A multiply-add is two FLOPs.

    projector   2·R·(its matrices)
    Q-Former    per view 2·L·(4·M·W² + 2·M²·W + 2·M·W·H) + 2·C·(2·M·W² + 2·N·D·W + 2·M·N·W)

The backward pass takes as much for every operand that has to have a gradient: three times over while all trains, twice
where features, which are frozen, are an operand. Resamplers without weights are not counted. Of a tiled image, tokens
that only show padding are not projected.
"""

from torch import nn

from mmbridge.connectors.bert_blocks import Attention, Block
from mmbridge.connectors.connector import Connector
from mmbridge.connectors.qformer import QFormer
from mmbridge.connectors.tiles import packed_length
from mmbridge.encoders.base import Tiling
from mmbridge.matrices import Matrix, matrices


class ConnectorFlops:
    """Of one connector, by how a medium is tiled. What trains is settled by then."""

    def __init__(self, connector: nn.Module) -> None:
        assert isinstance(connector, Connector)
        self._connector = connector
        view, token = _Count(), _Count()
        learns = view.qformer(connector.resampler, connector.source.tokens)
        assert isinstance(connector.projector, nn.Module)
        for matrix in matrices(connector.projector):
            learns = token.map(matrix, 1, learns)
        self._view, self._token = 2 * view.total, 2 * token.total

    def __call__(self, tiling: Tiling | None) -> int:
        facts = self._connector.facts
        if tiling is None:
            return self._view + self._token * facts.tokens
        return self._view * tiling.views + self._token * packed_length(facts.grid, tiling, newline=False)


class _Count:
    """Multiply-adds so far, and with each product what it needs for gradients.

    ``learns`` says of an operand whether something before it trains; every method says it of its result.
    """

    def __init__(self) -> None:
        self.total = 0

    def map(self, matrix: Matrix, tokens: int, learns: bool) -> bool:
        self.total += tokens * matrix.size * (1 + learns + matrix.trains)
        return learns or matrix.trains

    def qformer(self, resampler: object, features: int) -> bool:
        """Of one view; nothing where the resampler is something without weights."""
        if not isinstance(resampler, QFormer):
            return False
        queries = resampler.config.queries
        learns, seen = _trains(resampler.embeddings), _trains(resampler.feature_norm)
        for block in resampler.blocks:
            assert isinstance(block, Block)
            learns = self._attention(block.attention, queries, queries, learns, learns)
            if block.cross is not None:
                learns = self._attention(block.cross, queries, features, learns, seen)
            for matrix in matrices(block.query_feed):
                learns = self.map(matrix, queries, learns)
            learns |= _trains(block.query_feed)
        return learns

    def _attention(self, attention: Attention, queries: int, keys: int, learns: bool, source: bool) -> bool:
        query = self._linear(attention.query, queries, learns)
        key = self._linear(attention.key, keys, source)
        value = self._linear(attention.value, keys, source)
        pairs = queries * keys * attention.query.out_features
        scores = query or key
        self.total += pairs * (1 + query + key) + pairs * (1 + scores + value)
        mixed = self._linear(attention.out, queries, scores or value)
        return learns or mixed or _trains(attention.norm)

    def _linear(self, linear: nn.Linear, tokens: int, learns: bool) -> bool:
        (matrix,) = matrices(linear)
        return self.map(matrix, tokens, learns) or _trains(linear)


def _trains(module: nn.Module | None) -> bool:
    return module is not None and any(parameter.requires_grad for parameter in module.parameters())
