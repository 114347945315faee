"""Sources mixed in given shares, in an order that depends on nothing but the seed.

Draws are counted from the start of a stage and never again from 0. Which sample draw 100,000 is follows from the seed
and that number alone, whatever the batch size, the number of workers or processes, and where a run was resumed.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmbridge.data.sample import Sample
from mmbridge.data.sources import Source
from mmbridge.errors import DataError

Order = NDArray[np.int64]


class Mixture:
    """``sources`` in the shares that ``weights`` give them; an epoch is as many draws as they have samples together.

    In an epoch each source has its share of the draws, to the nearest whole one, in random places. A source is gone
    through in random order, each sample once, before it begins again in another order; with several sources this
    need not coincide with the epochs of the mix.

    Raises:
        DataError: a source whose share of an epoch is less than one sample.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float], seed: int) -> None:
        self.sources, self.seed = tuple(sources), seed
        self._sizes = [len(source) for source in sources]
        self._shares = _apportioned(sum(self._sizes), weights)
        for source, share in zip(sources, self._shares, strict=True):
            if share == 0:
                raise DataError(source.name, "expected a share of at least one sample an epoch", "raise its weight")
        self._made: dict[Hashable, Any] = {}

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
        plan, turns = self._kept(("epoch", epoch), lambda: self._plan(epoch))
        source = int(plan[place])
        again, position = divmod(epoch * self._shares[source] + int(turns[place]), self._sizes[source])
        order = self._kept((source, again), lambda: self._random(1 + source, again).permutation(self._sizes[source]))
        return source, int(order[position])

    def _plan(self, epoch: int) -> tuple[Order, Order]:
        """For each place of an epoch its source, and how many earlier places of the epoch are that source's."""
        plan = self._random(0, epoch).permutation(np.repeat(np.arange(len(self._shares)), self._shares))
        turns = np.empty_like(plan)
        for source, share in enumerate(self._shares):
            turns[plan == source] = np.arange(share)
        return plan, turns

    def _random(self, stream: int, round_: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, stream, round_])

    def _kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Random orders are made when first needed; the newest are kept, two of each, as batches straddle epochs."""
        if key not in self._made:
            if len(self._made) >= 2 * len(self.sources) + 2:
                del self._made[next(iter(self._made))]
            self._made[key] = make()
        return self._made[key]


def _apportioned(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to the weights that add up to the total (largest remainders)."""
    exact = np.asarray(weights, np.float64) / np.sum(weights) * total
    shares = np.floor(exact).astype(np.int64)
    for index in np.argsort(shares - exact, kind="stable")[: total - int(shares.sum())]:
        shares[index] += 1
    return [int(share) for share in shares]
