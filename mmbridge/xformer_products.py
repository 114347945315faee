"""The products of an X-Former's two cross-attentions, and of what a masked autoencoder's decoder makes of the first;
nothing is computed.

Symbols: n details of a row, D their width, M queries, W their width, H the width inside the feed-forwards; L patches, E
the decoder's width, F that inside its feed-forwards, b its blocks, P numbers of a patch. Multiply-adds a row:

    details read queries    2·n·D² + 2·M·W·D + 2·n·M·D, and 2·n·D·H
    queries read details    2·M·W² + 2·n·D·W + 2·n·M·W, and 2·M·W·H
    decoder                 (1 + K)·D·E + b·((1 + L)·(4·E² + 2·E·F) + 2·(1 + L)²·E) + (1 + L)·E·P, K patches visible
"""

from torch import nn
from transformers.models.vit_mae.modeling_vit_mae import ViTMAELayer

from mmbridge.connectors.xformer import XFormer
from mmbridge.encoders.masked import MaskedDecoder
from mmbridge.products import Products, Value, joined
from mmbridge.qformer_products import LayerProducts


class DualProducts(LayerProducts):
    """Adds those of the cross-attentions to ``products``; ``details`` are n where a whole view is read."""

    def __init__(self, xformer: XFormer, details: int, products: Products) -> None:
        super().__init__(products)
        self._dual, self._details, self._queries = xformer.dual, details, xformer.qformer.config.queries

    def enriched(self, rows: int, details: int, queries: Value) -> Value:
        """So many details a row, which have read queries."""
        keys, values = self.key_value(self._dual.enriching, rows * self._queries, queries)
        pairs = rows * details * self._queries
        found = self.attention(self._dual.enriching, rows * details, pairs, Value(learns=False), keys, values)
        return self.feed(self._dual.enriching_feed, rows * details, found)

    def read(self, rows: int, queries: Value) -> Value:
        """Queries, which have read what they make of the details."""
        enriched = self.enriched(rows, self._details, queries)
        keys, values = self.key_value(self._dual.reading, rows * self._details, enriched)
        asked = rows * self._queries
        found = self.attention(self._dual.reading, asked, asked * self._details, queries, keys, values)
        return self.feed(self._dual.reading_feed, asked, found)


def decoded(decoder: MaskedDecoder, views: int, visible: int, read: int, value: Value, products: Products) -> Value:
    """What a frozen decoder makes of views of which so many patches are visible; ``read`` places of each come out.

    Hidden patches count as if what stands for them had to have a gradient.
    """
    made, own, places = products, decoder.decoder, 1 + decoder.patches
    value = made.linear(own.decoder_embed, views * (1 + visible), value)
    for index, block in enumerate(own.decoder_layers):
        assert isinstance(block, ViTMAELayer)
        asked = read if index == len(own.decoder_layers) - 1 else places
        value = _block(block, views, places, asked, value, made)
    return made.linear(own.decoder_pred, views * read, value)


def _block(block: ViTMAELayer, views: int, places: int, asked: int, value: Value, made: Products) -> Value:
    def linear(module: nn.Linear, count: int, source: Value) -> Value:
        return made.linear(module, views * count, source)

    attention, mlp = block.attention, block.mlp
    keys, values = linear(attention.k_proj, places, value), linear(attention.v_proj, places, value)
    size = views * asked * places * attention.q_proj.out_features
    scores = made.of(size, linear(attention.q_proj, asked, value), keys)
    value = joined(value, linear(attention.o_proj, asked, made.of(size, scores, values)))
    return joined(value, linear(mlp.fc2, asked, linear(mlp.fc1, asked, value)))
