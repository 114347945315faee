"""Keys and values of every block, kept for later passes over the same rows, or over some of them.

Symbols: R rows, h heads, K places attended to, d = width / h.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmbridge.connectors.bert_blocks import KeyValue


@dataclass(frozen=True, slots=True)
class KeysValues:
    """What later passes attend to: ``blocks``, keys and values (R, h, K, d) by block, ``None`` in those without; and
    ``mask`` (R, 1, 1, K), true where a place is real, or ``None`` where all are."""

    blocks: tuple[KeyValue | None, ...]
    mask: Tensor | None = None

    @property
    def rows(self) -> int:
        return next(len(each[0]) for each in self.blocks if each is not None)

    def of(self, rows: Tensor) -> "KeysValues":
        """Those of other rows: ``rows`` (R',) says which of the R each is."""
        blocks = tuple(None if each is None else (each[0][rows], each[1][rows]) for each in self.blocks)
        return KeysValues(blocks, None if self.mask is None else self.mask[rows])

    def above(self, other: "KeysValues") -> "KeysValues":
        """These rows and, below them, those of another, of as many blocks and places."""
        blocks = tuple(
            None
            if mine is None or theirs is None
            else (torch.cat([mine[0], theirs[0]]), torch.cat([mine[1], theirs[1]]))
            for mine, theirs in zip(self.blocks, other.blocks, strict=True)
        )
        if self.mask is None and other.mask is None:
            return KeysValues(blocks)
        return KeysValues(blocks, torch.cat([self._real(), other._real()]))

    def _real(self) -> Tensor:
        """(R, 1, 1, K), also where it is left out."""
        if self.mask is not None:
            return self.mask
        key, _ = next(each for each in self.blocks if each is not None)
        return torch.ones(len(key), 1, 1, key.shape[2], dtype=torch.bool, device=key.device)
