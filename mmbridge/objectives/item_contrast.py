"""Item–item contrast: each item finds, among those of all processes, the one that was consumed together with it.

Item-Language Model for Conversational Recommendation
Li Yang, Anushya Subbiah, Hardik Patel, Judith Yue Li, Yanwei Song, Reza Mirghaderi, Vikram Aggarwal, Qifan Wang,
arXiv 2406.02844
(user–item contrast, ILM-UI, is the same with a user in an item's place)

How near two items are is how near the nearest two of their queries are in the connector's shared space.

Symbols: S pairs of items of this process, A of all.

differs from the paper: what is right is right wherever it stands: pairs that share an item on the same side share what
is right, and an item is never a negative of itself. The temperature is that of ``itc``.
"""

import torch
from torch import Tensor

from mmbridge.data.batch import Batch
from mmbridge.data.sample import MediumKind
from mmbridge.objectives.base import Reads
from mmbridge.objectives.item_pairs import ItemPairs, item_places
from mmbridge.objectives.run import BatchRun


class ItemContrast:
    """One term for each pair: ½ [CE of its second for its first + CE of its first for its second].

    Args:
        connector: whose shared space it is.
        medium: the kind it reads.
    """

    joint = True

    def __init__(self, connector: str, medium: MediumKind) -> None:
        self._connector, self._medium = connector, medium
        self.reads = (Reads("items", connector),)

    def terms(self, batch: Batch) -> int:
        return len(item_places(batch, self._medium))

    def __call__(self, run: BatchRun) -> Tensor:
        pairs = ItemPairs(run, self._connector)
        temperature = run.pairs(self._connector).heads.temperature
        same_firsts, same_seconds = pairs.same(0, 0), pairs.same(1, 1)
        right = (same_firsts | same_seconds).float()
        targets = right / right.sum(dim=1, keepdim=True)
        total = targets.new_zeros(())
        for near, itself in ((pairs.to_seconds, pairs.same(0, 1)), (pairs.to_firsts, pairs.same(1, 0))):
            logits = (near.float() / temperature).masked_fill(itself, -torch.inf)
            chances = logits.log_softmax(dim=1).masked_fill(targets == 0, 0)  # no share of minus infinity
            total = total - (targets * chances).sum() / 2
        return total
