"""What an encoder takes and gives: ``Views`` in, ``Features`` out.

Symbols: V views (rows of an encoder's batch), N tokens of a view, D_enc the encoder's width, B media, R real tokens of
all views of one medium. Without tiling a medium is one view and V = B.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mmbridge.data.sample import MediumKind

Picture = Image.Image | NDArray[np.uint8]
"""What vision encoders prepare: an image of any mode, or its pixels in RGB, (H, W, 3)."""

PREPARATION = 2
"""Counts what changes the views that are made of an image: features kept from before are stale then."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The layout of a view's tokens: steps in time, rows, columns (an image has ``time`` 1)."""

    time: int
    height: int
    width: int

    @property
    def cells(self) -> int:
        return self.time * self.height * self.width

    def __str__(self) -> str:
        sides = (self.time, self.height, self.width)
        return "×".join(str(side) for side in sides[self.time == 1 :])


@dataclass(frozen=True, slots=True)
class Tiling:
    """How the views after the first (the thumbnail) tile one image (AnyRes).

    ``rows`` by ``columns`` tiles; ``height`` and ``width`` are the image's own size in pixels, before padding.
    """

    rows: int
    columns: int
    height: int
    width: int

    @property
    def views(self) -> int:
        return 1 + self.rows * self.columns


@dataclass(frozen=True, slots=True)
class Views:
    """One medium, preprocessed for one encoder: ``inputs`` (V, …), and how its views tile it, if they do.

    Of images (V, C, H, W): inputs in uint8 are normalised on the encoder's device; others are so already.
    """

    inputs: Tensor
    tiling: Tiling | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """One medium's features, encoded before: ``values`` (R, D_enc), its views' real tokens one view after the other.

    ``lengths`` are the real tokens of each view and ``grids`` their layouts; ``tiling`` is as in ``Views``.
    """

    values: Tensor
    lengths: tuple[int, ...]
    grids: tuple[Grid, ...]
    tiling: Tiling | None = None


Prepared = Views | Stored
"""A medium as an encoder takes it: to be encoded, or encoded before."""


@dataclass(frozen=True, slots=True)
class EncoderFacts:
    """What an encoder's output is, read from the loaded model and never guessed from its name.

    ``width`` is D_enc (several taps are joined along it); ``grid`` is one view's; ``prefix`` counts the tokens that
    stand before the grid in the output (CLS, registers). A pooled output has a 1×1×1 grid and no prefix.
    """

    width: int
    grid: Grid
    prefix: int = 0

    @property
    def tokens(self) -> int:
        return self.prefix + self.grid.cells


@dataclass(frozen=True)  # without slots: ZeRO-3 looks for the tensors in what a module returns
class Features:
    """An encoder's output.

    ``values`` (V, N, D_enc); ``mask`` (V, N), true where a token is real; ``grids`` one per view; ``prefix`` tokens
    stand before the grid's in every row; ``tilings`` one per medium, ``None`` where the medium is a single view.
    """

    values: Tensor
    mask: Tensor
    grids: tuple[Grid, ...]
    tilings: tuple[Tiling | None, ...]
    prefix: int = 0


class Preparation(Protocol):
    """From an opened medium to views, on the CPU and without a model. It can be pickled and goes to loader workers."""

    @property
    def most_views(self) -> int:
        """How many views one medium can become."""
        ...

    def tiling(self, width: int, height: int) -> Tiling | None:
        """How an image of so many pixels will be cut, before it is opened."""
        ...

    def __call__(self, opened: Any, /) -> Views:
        """``opened`` is what ``mmbridge.data.opening`` makes of a medium of the encoder's kind."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """A frozen module from media of one kind to features."""

    @property
    def medium(self) -> MediumKind:
        """The kind it takes."""
        ...

    @property
    def facts(self) -> EncoderFacts:
        """What comes out of it."""
        ...

    @property
    def prepare(self) -> Preparation:
        """What makes views of an opened medium."""
        ...

    def encode(self, media: Sequence[Prepared]) -> Features:
        """Features of several media, in order; it runs over those alone that were not encoded before."""
        ...

    def flops(self) -> int:
        """Those of one view, whatever of it is read."""
        ...


def blank(facts: EncoderFacts, device: torch.device) -> Features:
    """Features of one medium that holds nothing: zeros in a full grid."""
    mask = torch.ones(1, facts.tokens, dtype=torch.bool, device=device)
    values = torch.zeros(1, facts.tokens, facts.width, device=device)
    return Features(values, mask, (facts.grid,), (None,), facts.prefix)


def views_per_medium(tilings: Sequence[Tiling | None]) -> list[int]:
    """How many rows of an encoder's batch belong to each medium."""
    return [1 if tiling is None else tiling.views for tiling in tilings]
