"""The products of a Q-Former's passes over rows of queries, of text, or of both; nothing is computed.

Symbols: N features of a view, D their width, M queries, W width of the Q-Former, H the width inside its feed-forwards;
Q places of a pass that are queries, T that are text, P pairs of a place and one that it attends to, each in all rows
together. Multiply-adds of a block:

    keys, values             2·(Q + T)·W²
    queries, output, pairs   2·(Q + T)·W² + 2·P·W
    to features              2·Q·W² + 2·Q·N·W          where the block attends to them
    feed-forwards            2·(Q + T)·W·H
    features' keys, values   2·N·D·W a view            ``image``, once for any number of passes
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from torch import nn

from mmbridge.connectors.bert_blocks import Attention, Block, FeedForward
from mmbridge.connectors.qformer import QFormer
from mmbridge.products import Products, Value, joined, trains

KeyValue = tuple[Value, Value]
Kept = Sequence[KeyValue | None]
"""By block; ``None`` in those without."""


@dataclass(frozen=True, slots=True)
class Places:
    """Places of a pass in all its rows: ``queries`` Q, ``text`` T, and ``pairs`` P of its self-attention.

    ``last`` are those of the last block whose output is read, and their pairs; all where it is left out.
    """

    queries: int = 0
    text: int = 0
    pairs: int = 0
    last: "Places | None" = None

    @classmethod
    def alone(cls, queries: int, rows: int = 1) -> Self:
        """Of rows of queries without text."""
        return cls(queries=rows * queries, pairs=rows * queries**2)

    @property
    def all(self) -> int:
        return self.queries + self.text

    def __add__(self, other: "Places") -> "Places":
        """Of the rows of both."""
        last = None if self.last is None or other.last is None else self.last + other.last
        return Places(self.queries + other.queries, self.text + other.text, self.pairs + other.pairs, last)


class Passed(NamedTuple):
    """What comes out of a pass: ``states`` of all its places, and their own keys and values."""

    states: Value
    kept: Kept


class LayerProducts:
    """Adds those of BERT's attentions and feed-forwards to ``products``."""

    def __init__(self, products: Products) -> None:
        self._products = products

    def key_value(self, attention: Attention, places: int, source: Value) -> KeyValue:
        made = self._products
        return made.linear(attention.key, places, source), made.linear(attention.value, places, source)

    def attention(
        self, attention: Attention, places: int, pairs: int, states: Value, keys: Value, values: Value
    ) -> Value:
        made, size = self._products, pairs * attention.query.out_features
        scores = made.of(size, made.linear(attention.query, places, states), keys)
        found = made.linear(attention.out, places, made.of(size, scores, values))
        return joined(states, found, trains=trains(attention.norm))

    def feed(self, feed: nn.Module | None, places: int, states: Value) -> Value:
        assert isinstance(feed, FeedForward)
        inside = self._products.linear(feed.up, places, states)
        found = self._products.linear(feed.down, places, inside)
        return joined(states, found, trains=trains(feed.norm))


class QFormerProducts(LayerProducts):
    """Adds those of each pass over a Q-Former to ``products``; ``features`` are N."""

    def __init__(self, qformer: QFormer, features: int, products: Products) -> None:
        super().__init__(products)
        self._qformer, self._features = qformer, features
        self._blocks = [block for block in qformer.blocks if isinstance(block, Block)]

    def image(self, views: int) -> Kept:
        """Keys and values of so many views."""
        features, seen = views * self._features, Value(trains(self._qformer.feature_norm))
        crossing = (block.cross for block in self._blocks)
        return [None if each is None else self.key_value(each, features, seen) for each in crossing]

    def read(self, places: Places, image: Kept = (), kept: Kept = ()) -> Passed:
        """One pass: over queries, which attend to ``image``, and text, both of which attend to ``kept`` as well."""
        embeddings = self._qformer.embeddings
        read = [embeddings.queries] if places.queries else []
        told = [embeddings.words, embeddings.positions] if places.text else []
        states, own = Value(trains(embeddings.norm, *read, *told)), list[KeyValue]()
        for index, block in enumerate(self._blocks):
            asked = places if places.last is None or index < len(self._blocks) - 1 else places.last
            own.append(self.key_value(block.attention, places.all, states))
            before = kept[index] if kept else None
            keys, values = own[-1] if before is None else (joined(*each) for each in zip(before, own[-1], strict=True))
            states = self.attention(block.attention, asked.all, asked.pairs, states, keys, values)
            parts = []
            if places.queries:
                asking, seen = states, image[index]
                if block.cross is not None:
                    assert seen is not None
                    pairs = asked.queries * self._features
                    asking = self.attention(block.cross, asked.queries, pairs, asking, *seen)
                parts.append(self.feed(block.query_feed, asked.queries, asking))
            if places.text:
                parts.append(self.feed(block.text_feed, asked.text, states))
            states = joined(*parts)
        return Passed(states, own)
