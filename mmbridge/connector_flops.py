"""The floating-point operations that a connector needs for one medium, forward and backward, as closed formulas.

Symbols: N features of a view, D their width, M queries, W width of a Q-Former, L its blocks, C of them attending to the
features, H the width inside its feed-forwards, R tokens that are projected. A multiply-add is two FLOPs.

    projector   2·R·(its matrices), and for a mixture of K words of width D_llm 2·R·K·D_llm
    Q-Former    per view 2·L·(4·M·W² + 2·M²·W + 2·M·W·H) + 2·C·(2·M·W² + 2·N·D·W + 2·M·N·W)
    X-Former    a Q-Former, and per view what ``mmbridge.xformer_products`` lists

The backward pass takes as much for every operand that has to have a gradient: three times over while all trains, twice
where features, which are frozen, are an operand. Resamplers without weights are not counted. Of a tiled image, tokens
that only show padding are not projected. What losses make of a Q-Former beside: ``mmbridge.pair_flops``; of one that
reads instructions: ``mmbridge.instruction_flops``.
"""

from torch import nn

from mmbridge.connectors.connector import Connector
from mmbridge.connectors.tiles import packed_length
from mmbridge.connectors.vocabulary import Vocabulary
from mmbridge.connectors.xformer import XFormer, qformer_in
from mmbridge.encoders.base import Tiling
from mmbridge.matrices import matrices
from mmbridge.products import Products, Value, joined, trains
from mmbridge.qformer_products import Places, QFormerProducts
from mmbridge.xformer_products import DualProducts


class ConnectorFlops:
    """Of one connector, by how a medium is tiled. What trains is settled by then.

    ``learns`` says whether something trains in or before the perceptual tokens.
    """

    def __init__(self, connector: nn.Module) -> None:
        assert isinstance(connector, Connector)
        assert isinstance(connector.resampler, nn.Module)
        assert isinstance(connector.projector, nn.Module)
        self._connector = connector
        view, token = Products(), Products()
        sampled = _sampled(connector, view)
        ends = trains(connector.projector, connector.position, connector.newline, connector.end_token)
        self.learns = sampled.learns or ends
        self._view = 2 * view.executed([sampled])
        end = projected(connector, 1, sampled, token)
        self._token, self._again = 2 * token.executed([end]), 0
        if isinstance(connector.projector, Vocabulary) and end.learns:
            self._again = 2 * connector.projector.mixed

    def __call__(self, tiling: Tiling | None, *, again: bool = False) -> int:
        """What a medium needs, or executes, with what is computed ``again`` for the backward pass."""
        facts, token = self._connector.facts, self._token + again * self._again
        if tiling is None:
            return self._view + token * facts.tokens
        return self._view * tiling.views + token * packed_length(facts.grid, tiling, newline=False)


def _sampled(connector: Connector, products: Products) -> Value:
    """One view on its way through a resampler."""
    resampler, sources = connector.resampler, connector.sources
    assert isinstance(resampler, nn.Module)
    qformer = qformer_in(resampler)
    if qformer is None:
        return Value(trains(resampler))
    passes = QFormerProducts(qformer, sources[0].tokens, products)
    found = passes.read(Places.alone(qformer.config.queries), passes.image(1)).states
    return (
        DualProducts(resampler, sources[1].tokens, products).read(1, found) if isinstance(resampler, XFormer) else found
    )


def projected(connector: Connector, tokens: int, value: Value, products: Products) -> Value:
    """So many tokens on their way to the LLM."""
    projector = connector.projector
    assert isinstance(projector, nn.Module)
    if isinstance(projector, Vocabulary):
        value = joined(products.linear(projector.linear, tokens, value), trains=trains(projector.norm))
        value = joined(products.linear(projector.head, tokens, value), trains=trains(projector.head_norm))
        return products.of(tokens * projector.mixed, value, Value(learns=False))
    for matrix in matrices(projector):
        value = products.matrix(matrix, tokens, value)
    return value
