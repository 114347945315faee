"""Blocks of BERT as a Q-Former needs them: some attend to features as well, and queries and text part before the
feed-forward.

BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding
Jacob Devlin, Ming-Wei Chang, Kenton Lee, Kristina Toutanova, arXiv 1810.04805

Symbols: R rows, S places of a row (queries, then text), K places attended to, W width, D width of the features,
h heads, d = W / h. Norms come after the residual sum, with an epsilon of 1e-12.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-12

KeyValue = tuple[Tensor, Tensor]
"""Keys and values of one attention, (R, h, K, d) each."""


class Attention(nn.Module):
    """Attention from places of W numbers to a source of ``source`` numbers a place; residual, then norm."""

    def __init__(self, width: int, source: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key, self.value = nn.Linear(source, width), nn.Linear(source, width)
        self.norm = nn.LayerNorm(width, EPSILON)
        self.dropout = nn.Dropout(dropout)

    def key_value(self, source: Tensor) -> KeyValue:
        """Of what is to be attended to, (R, K, D)."""
        return self._by_head(self.key(source)), self._by_head(self.value(source))

    def forward(self, states: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """(R, S, W) to (R, S, W); ``mask`` (R, 1, 1 or S, K) is true where a place may be attended to."""
        query = self._by_head(self.query(states))
        rate = self.dropout.p if self.training else 0.0
        found = functional.scaled_dot_product_attention(query, key, value, mask, dropout_p=rate)
        out: Tensor = self.norm(self.dropout(self.out(found.transpose(1, 2).flatten(2))) + states)
        return out

    def _by_head(self, values: Tensor) -> Tensor:
        return values.view(*values.shape[:-1], self.heads, -1).transpose(1, 2)


class FeedForward(nn.Module):
    """W to ``hidden`` and back with a GELU between; residual, then norm."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width, EPSILON)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        out: Tensor = self.norm(self.dropout(self.down(functional.gelu(self.up(states)))) + states)
        return out


class Block(nn.Module):
    """Self-attention over queries and text; for queries, attention to features and a feed-forward; for text its own.

    Args:
        width: W.
        features: D, in a block whose queries attend to features; ``None`` in others.
        heads: h.
        hidden: width inside the feed-forwards.
        dropout: on attention weights, and before every residual sum.
        text: whether there is a feed-forward for text.
    """

    def __init__(
        self, width: int, features: int | None, heads: int, hidden: int, dropout: float, *, text: bool
    ) -> None:
        super().__init__()
        self.attention = Attention(width, width, heads, dropout)
        self.cross = None if features is None else Attention(width, features, heads, dropout)
        self.query_feed = FeedForward(width, hidden, dropout)
        self.text_feed = FeedForward(width, hidden, dropout) if text else None

    def forward(
        self,
        states: Tensor,
        queries: int,
        mask: Tensor | None,
        before: KeyValue | None,
        features: KeyValue | None,
        features_mask: Tensor | None,
    ) -> tuple[Tensor, KeyValue]:
        """(R, S, W) to (R, S, W), of which the first ``queries`` places are queries; and their self-attention's keys
        and values.

        Args:
            states: of queries, text, or both.
            queries: how many places are queries; 0 where only text is read.
            mask: (R, 1, 1 or S, K) of the self-attention; ``None`` where every place may attend to every place.
            before: further keys and values, put in front of the states' own.
            features: keys and values of the features, for queries of a block that attends to them.
            features_mask: (R, 1, 1, K).
        """
        own = key, value = self.attention.key_value(states)
        if before is not None:
            key, value = torch.cat([before[0], key], dim=2), torch.cat([before[1], value], dim=2)
        states = self.attention(states, key, value, mask)
        asking, told = states[:, :queries], states[:, queries:]
        parts = []
        if queries:
            if self.cross is not None:
                assert features is not None
                asking = self.cross(asking, *features, features_mask)
            parts.append(self.query_feed(asking))
        if told.shape[1]:
            assert self.text_feed is not None
            parts.append(self.text_feed(told))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1), own
