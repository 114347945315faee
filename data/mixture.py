"""Sources mixed in given shares, in an order that depends on nothing but the seed.

Draws are counted from the start of a stage and never again from 0. Which sample draw 100,000 is follows from the seed
and that number alone, whatever the batch size, the number of workers or processes, and where a run was resumed. Neither
memory nor the time to find a draw grows with the number of samples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmbridge.data.block_shuffle import BlockShuffle
from mmbridge.data.recent import Recent
from mmbridge.data.sample import Sample
from mmbridge.data.shuffle import WHOLE, Shuffle
from mmbridge.data.sources import Source
from mmbridge.errors import DataError

Order = NDArray[np.int32]
_MOST = 10**9
"""Draws of an epoch of several sources that numpy's hypergeometric distribution takes."""


class Mixture:
    """``sources`` in the shares that ``weights`` give them; an epoch is as many draws as they have samples together.

    In an epoch each source has its share of the draws, to the nearest whole one, in random places. A source is gone
    through in random order, each sample once, before it begins again in another order; with several sources this
    need not coincide with the epochs of the mix. A source that is cheap to read in blocks (``Blocks``) is gone through
    in an order of blocks, shuffled within a window of a few.

    Raises:
        DataError: a source whose share of an epoch is less than one sample, or 10⁹ samples and more in several sources.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float], seed: int) -> None:
        self.sources, self.seed = tuple(sources), seed
        self._sizes = [len(source) for source in sources]
        self._shares = _apportioned(sum(self._sizes), weights)
        for source, share in zip(sources, self._shares, strict=True):
            if share == 0:
                raise DataError(source.name, "expected a share of at least one sample an epoch", "raise its weight")
        if len(self.sources) > 1 and len(self) >= _MOST:
            raise DataError("mix", f"expected fewer than {_MOST:,} samples, found {len(self):,}", "set limits")
        self._made = [Recent[Any](2) for _ in (0, *self.sources)]  # two, as batches straddle epochs

    def __len__(self) -> int:
        """Draws in an epoch."""
        return sum(self._sizes)

    def __getitem__(self, draw: int, /) -> Sample:
        """The sample of a draw; draws go on past the end of an epoch."""
        source, index = self.locate(draw)
        return self.sources[source][index]

    def locate(self, draw: int) -> tuple[int, int]:
        """Which source a draw is from, and which of its samples it is."""
        epoch, place = divmod(draw, len(self))
        source, turn = self._turn(epoch, place)
        size, stream = self._sizes[source], 1 + source
        again, position = divmod(epoch * self._shares[source] + turn, size)
        order = self._made[stream].get(again, lambda: self._order(source, [self.seed, stream, again]))
        return source, order[position]

    def _order(self, source: int, key: Sequence[int]) -> Shuffle | BlockShuffle:
        blocks = getattr(self.sources[source], "blocks", None)
        return Shuffle(self._sizes[source], key) if blocks is None else BlockShuffle(blocks, key)

    def _turn(self, epoch: int, place: int) -> tuple[int, int]:
        """The source of a place of an epoch, and how many earlier places of the epoch are that source's."""
        if len(self.sources) == 1:
            return 0, place
        part, within = divmod(place, WHOLE)
        parts = -(-len(self) // WHOLE)
        plan, turns = self._made[0].get(epoch * parts + part, lambda: self._plan(epoch, part, parts))
        return int(plan[within]), int(turns[within])

    def _plan(self, epoch: int, part: int, parts: int) -> tuple[Order, Order]:
        """Sources and turns of the ``WHOLE`` places of one part of an epoch.

        How many draws of each source fall into it is found by halving the epoch, as often as it takes, and drawing how
        many fall into the first half: as they would if all places were shuffled at once.
        """
        first, last, earlier, held = 0, parts, np.zeros_like(self._shares), np.array(self._shares)
        while last - first > 1:
            middle = (first + last) // 2
            before = self._random(0, epoch, middle, 1).multivariate_hypergeometric(held, (middle - first) * WHOLE)
            if part < middle:
                last, held = middle, before
            else:
                first, earlier, held = middle, earlier + before, held - before
        plan = self._random(0, epoch, part).permutation(np.repeat(np.arange(len(held), dtype=np.int32), held))
        turns = np.empty_like(plan)
        for source, many in enumerate(held):
            turns[plan == source] = earlier[source] + np.arange(many)
        return plan, turns

    def _random(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *key])


def _apportioned(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to the weights that add up to the total (largest remainders)."""
    exact = np.asarray(weights, np.float64) / np.sum(weights) * total
    shares = np.floor(exact).astype(np.int64)
    for index in np.argsort(shares - exact, kind="stable")[: total - int(shares.sum())]:
        shares[index] += 1
    return [int(share) for share in shares]
