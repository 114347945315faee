"""X-Former: a Q-Former's queries and the features of a masked autoencoder read each other.

X-Former: Unifying Contrastive and Reconstruction Learning for MLLMs
Sirnam Swetha, Jinyu Yang, Tal Neiman, Mamshad Nayeem Rizve, Son Tran, Benjamin Yao, Trishul Chilimbi, Mubarak Shah,
arXiv 2407.13851

The first encoder (CLIP-like) is read by BLIP-2's Q-Former, whose queries are Z_q. The features M of the second
(MAE-like) attend to them, M' = CA(M, Z_q), and the queries to what that makes of M: Z' = CA(Z_q, M') goes on to the
projector. Nothing that the second encoder sees reaches the queries but through M'.

Decided here, where the sources at hand say nothing: contrast compares Z' with texts and matching judges by Z' of
queries that read a text beside them, both over features of the whole image; grounded generation reads the keys and
values that the queries have inside the Q-Former, as in BLIP-2, since text stands in its blocks and Z' behind them. So
what the LLM will read is what is aligned. Each cross-attention is a layer of BERT, as those in the Q-Former
are, with a feed-forward of the Q-Former's width inside behind it. At the paper's sizes that is 21 M parameters; it
counts about 20 M.

Symbols: R rows (views, or pairs of views and texts), V views, N tokens of a view of the second encoder, D their width,
M queries, W width of the Q-Former, h heads.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from mmbridge.connectors.bert_blocks import Attention, FeedForward
from mmbridge.connectors.config import XFormerConfig
from mmbridge.connectors.qformer import SPREAD, QFormer
from mmbridge.encoders.base import EncoderFacts, Features, Grid
from mmbridge.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Details:
    """The second encoder's features: ``values`` (R, N, D), zero where not real, and ``mask`` (R, 1, 1, N), true where
    a token may be attended to, or ``None`` where all may."""

    values: Tensor
    mask: Tensor | None = None

    def of(self, rows: Tensor) -> "Details":
        """Those of other rows: ``rows`` (R',) says which of the R each is."""
        return Details(self.values[rows], None if self.mask is None else self.mask[rows])

    def above(self, other: "Details") -> "Details":
        """These rows and, below them, those of another, of as many tokens."""
        values = torch.cat([self.values, other.values])
        if self.mask is None and other.mask is None:
            return Details(values)
        return Details(values, torch.cat([self._real(), other._real()]))

    def _real(self) -> Tensor:
        """(R, 1, 1, N), also where it is left out."""
        rows, tokens, _ = self.values.shape
        return self.values.new_ones(rows, 1, 1, tokens, dtype=torch.bool) if self.mask is None else self.mask


class DualAttention(nn.Module):
    """Details read queries, and queries read what the details have become.

    Parameters are named ``enriching.*`` and ``enriching_feed.*`` (M'), ``reading.*`` and ``reading_feed.*`` (Z').
    """

    def __init__(self, width: int, details: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.enriching = Attention(details, width, heads, dropout)
        self.enriching_feed = FeedForward(details, hidden, dropout)
        self.reading = Attention(width, details, heads, dropout)
        self.reading_feed = FeedForward(width, hidden, dropout)

    def enriched(self, details: Tensor, queries: Tensor) -> Tensor:
        """M' (R, N, D) of M (R, N, D), which may be a part of a view's, and Z_q (R, M, W)."""
        found = self.enriching(details, *self.enriching.key_value(queries), None)
        out: Tensor = self.enriching_feed(found)
        return out

    def forward(self, queries: Tensor, details: Details) -> Tensor:
        """Z' (R, M, W) of Z_q (R, M, W)."""
        enriched = self.enriched(details.values, queries)
        found = self.reading(queries, *self.reading.key_value(enriched), details.mask)
        out: Tensor = self.reading_feed(found)
        return out

    def train(self, mode: bool = True) -> Self:
        """Dropout acts while something in it trains."""
        return super().train(mode and any(each.requires_grad for each in self.parameters()))


class XFormer(nn.Module):
    """Tokens of a view by two encoders to M queries, which stand in one row and have no prefix.

    Parameters are named ``qformer.*`` and ``dual.*``. They start as BERT's do.

    Args:
        config: sizes, and whether there is a text branch.
        first: of the encoder that the Q-Former reads.
        second: of the encoder whose features the queries read afterwards; D is its width.
        key: where the config stands in its recipe, for errors.

    Raises:
        RecipeError: D is no multiple of the heads.
    """

    def __init__(self, config: XFormerConfig, first: EncoderFacts, second: EncoderFacts, key: str) -> None:
        super().__init__()
        if second.width % config.heads:
            problem = f"expected a divisor of {second.width}, the width of the second encoder, found {config.heads}"
            raise RecipeError(f"{key}.heads", problem)
        own = config.qformer
        self.qformer = QFormer(own, first, f"{key}.qformer")
        self.dual = DualAttention(own.width, second.width, config.heads, own.feed_forward, own.dropout)
        for module in self.dual.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=SPREAD)
                nn.init.zeros_(module.bias)

    def facts(self, facts: EncoderFacts) -> EncoderFacts:
        return self.qformer.facts(facts)

    def grid(self, grid: Grid) -> Grid:
        return self.qformer.grid(grid)

    def forward(self, first: Features, second: Features) -> Features:
        """Z' of V views; a view without a real token of either encoder has none."""
        found: Features = self.qformer(first)
        values = self.dual(found.values, self.details(second.values, second.mask))
        return replace(found, values=values, mask=found.mask & second.mask.any(dim=1, keepdim=True))

    def details(self, values: Tensor, mask: Tensor) -> Details:
        """Of V views, for any number of passes.

        Args:
            values: (V, N, D), in any number format; what is not real may be anything.
            mask: (V, N).
        """
        values = values.to(self.dual.enriching.out.weight.dtype)
        if bool(mask.all()):
            return Details(values)
        keep = mask | ~mask.any(dim=1, keepdim=True)  # nothing real: attend to zeros, not nowhere
        return Details(values.masked_fill(~mask[..., None], 0), keep[:, None, None])


def qformer_in(resampler: object) -> QFormer | None:
    """The Q-Former that a resampler is or has inside."""
    found = resampler.qformer if isinstance(resampler, XFormer) else resampler
    return found if isinstance(found, QFormer) else None
