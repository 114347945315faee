"""The pairs of items of a batch, where a Q-Former's queries have put them in its shared space.

A sample whose conversation shows two media of the connector's kind, and not the same one twice, is a pair: its first
and its second. The text, where other objectives read it, is about the first. So a source says which items go together:
by putting them into one conversation.

Symbols: S pairs of this process, A of all that train together, V views, M queries, C width of the shared space.
"""

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmbridge.data.batch import Batch
from mmbridge.data.sample import MediumKind
from mmbridge.encoders.base import Prepared, Views
from mmbridge.joint import joint

if TYPE_CHECKING:
    from mmbridge.objectives.run import BatchRun


class ItemPairs:
    """``numbers`` (S, 2) are the views of each pair's items; two items are one where what encoders take is the same, in
    this process or in another."""

    def __init__(self, run: "BatchRun", name: str) -> None:
        self._pairs, self._ranks = run.pairs(name), run.ranks
        config = run.bridge.recipe.connectors[name]
        found = item_places(run.batch, config.medium)
        self.numbers = torch.tensor(found, dtype=torch.long, device=run.bridge.device).reshape(-1, 2)
        media = [run.batch.views[encoder] for encoder in config.encoders]
        keys = [[_key([views[number] for views in media]) for number in pair] for pair in found]
        self._keys = torch.tensor(keys, dtype=torch.long).reshape(-1, 2)

    @cached_property
    def _own(self) -> Tensor:
        """(S, 2, M, C)."""
        return self._pairs.shared[self.numbers]

    @cached_property
    def _all(self) -> Tensor:
        """(A, 2, M, C): those of all processes, by rank."""
        return joint(self._own, self._ranks)

    @cached_property
    def to_seconds(self) -> Tensor:
        """(S, A): how near each first is to all seconds."""
        return nearest(self._own[:, 0], self._all[:, 1])

    @cached_property
    def to_firsts(self) -> Tensor:
        """(S, A): how near each second is to all firsts."""
        return nearest(self._own[:, 1], self._all[:, 0])

    def same(self, own: int, other: int) -> Tensor:
        """(S, A), true where a pair's item on side ``own`` is that of another's on side ``other``."""
        found = self._keys[:, own, None] == self._all_keys[None, :, other]
        return found.to(self.numbers.device)

    @cached_property
    def _all_keys(self) -> Tensor:
        return torch.cat(self._ranks.rows(self._keys))


def nearest(firsts: Tensor, seconds: Tensor) -> Tensor:
    """(S, M, C) and (A, M, C) to (S, A): the largest product of any query of the one with any of the other."""
    products = firsts @ seconds.flatten(0, 1).T  # (S, M, A·M)
    return products.reshape(*firsts.shape[:2], *seconds.shape[:2]).amax(dim=(1, 3))


def item_places(batch: Batch, kind: MediumKind) -> list[tuple[int, int]]:
    """The numbers of the first two media of this kind, of each sample that shows two."""
    found = []
    for prompt, numbers in zip(batch.prompts, batch.media, strict=True):
        placed = zip(prompt.placeholders, numbers, strict=True)
        mine = [number for placeholder, number in placed if placeholder.medium == kind][:2]
        if len(set(mine)) == 2:
            found.append((mine[0], mine[1]))
    return found


def _key(media: list[Prepared]) -> int:
    """64 bits that two items share only if all encoders take the same of them."""
    hashed = hashlib.blake2b(digest_size=8)
    for each in media:
        values = each.inputs if isinstance(each, Views) else each.values
        hashed.update(f"{values.dtype}{tuple(values.shape)}".encode())
        hashed.update(values.contiguous().view(torch.uint8).numpy().tobytes())
    return int.from_bytes(hashed.digest(), "big", signed=True)
