"""Vectors that are features already: an item's, a user's or any other embedding, taken as they are.

Item-Language Model for Conversational Recommendation, arXiv 2406.02844 (factors of collaborative filtering).

Symbols: B media, K vectors of each, D their width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmbridge.data.vectors import Vectors, table_width
from mmbridge.encoders.base import EncoderFacts, Features, Grid, Prepared, Tiling, Views
from mmbridge.encoders.config import VectorsConfig
from mmbridge.errors import MediaError


@dataclass(frozen=True, slots=True)
class VectorPreparation:
    """Holds a medium's vectors against their number and width. It can be pickled."""

    count: int
    width: int
    most_views: int = 1

    def tiling(self, width: int, height: int) -> Tiling | None:
        """None: these are no pixels."""
        return None

    def __call__(self, opened: Vectors) -> Views:
        """(K, D) to a view whose inputs are (1, K, D).

        Raises:
            MediaError: they are more, fewer, or of another width.
        """
        if opened.shape != (self.count, self.width):
            found, expected = (f"{count} of width {width}" for count, width in (opened.shape, (self.count, self.width)))
            raise MediaError("vectors", f"expected {expected}, found {found}")
        return Views(torch.from_numpy(opened)[None])


class VectorEncoder(nn.Module):
    """A medium's K vectors as its features, each a token of its own; nothing is computed but what ``normalise`` asks.

    Raises:
        RecipeError: no such table.
        UserError: it is none.
    """

    medium: Literal["vector"] = "vector"
    place: Tensor

    def __init__(self, config: VectorsConfig) -> None:
        super().__init__()
        table = config.located()
        width = table_width(table) if table is not None else config.width
        assert width is not None
        self.normalise = config.normalise
        self.facts = EncoderFacts(width, Grid(1, 1, config.count))
        self.prepare = VectorPreparation(config.count, width)
        self.register_buffer("place", torch.zeros(0, dtype=getattr(torch, config.dtype)), persistent=False)

    @torch.no_grad()
    def encode(self, media: Sequence[Prepared]) -> Features:
        """Features (B, K, D): the vectors themselves, of length 1 if they are to be."""
        views = [one for one in media if isinstance(one, Views)]
        assert len(views) == len(media), "nothing keeps features of vectors"
        values = torch.cat([one.inputs for one in views]).to(self.place.device)
        if self.normalise:
            values = functional.normalize(values, dim=-1)
        values = values.to(self.place.dtype)
        mask = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        return Features(values, mask, (self.facts.grid,) * len(values), (None,) * len(values))

    def flops(self) -> int:
        """None."""
        return 0
