"""A random order of things that lie in blocks, of which only a few are open at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmbridge.data.recent import Recent
from mmbridge.data.shuffle import Shuffle


@dataclass(frozen=True, slots=True)
class Blocks:
    """In which stretches a source is cheap to read.

    ``sizes`` (blocks,): how many things lie in each block, one block behind the other. ``window``: how many blocks the
    source keeps open, so that going to and fro between so many costs nothing.
    """

    sizes: NDArray[np.int64]
    window: int


class BlockShuffle:
    """The numbers below the sum of the sizes in a random order, a pure function of ``key``.

    The blocks are put in random order and taken ``window`` at a time; within each window all numbers are shuffled
    together. Going through the order opens each block once, and no more than ``window`` of them at a time. A window
    that holds all blocks is a shuffle of everything. Memory grows with the number of blocks, time for a place with its
    logarithm.
    """

    def __init__(self, blocks: Blocks, key: Sequence[int]) -> None:
        count, self._window, self._key = len(blocks.sizes), blocks.window, tuple(key)
        order = Shuffle(count, key)
        taken = np.fromiter((order[place] for place in range(count)), np.int64, count)
        self._starts = (np.cumsum(blocks.sizes) - blocks.sizes)[taken]
        self._ends = np.cumsum(blocks.sizes[taken])
        self._shuffles = Recent[Shuffle](2)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, place: int, /) -> int:
        """The number at a place."""
        if not 0 <= place < len(self):
            raise IndexError(place)
        window = int(np.searchsorted(self._ends, place, side="right")) // self._window
        first, last = window * self._window, min((window + 1) * self._window, len(self._ends))
        begin, end = self._begin(first), int(self._ends[last - 1])
        # 1 +, as numpy makes the same of a key and of that key with a nought behind it
        within = self._shuffles.get(window, lambda: Shuffle(end - begin, [*self._key, 1 + window]))
        moved = begin + within[place - begin]
        block = int(np.searchsorted(self._ends, moved, side="right"))
        return int(self._starts[block]) + moved - self._begin(block)

    def _begin(self, block: int) -> int:
        """The first place of a block, in the order they are taken."""
        return int(self._ends[block - 1]) if block else 0
