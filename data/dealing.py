"""Dealing: a step's samples to processes and forward passes, by their lengths.

Which samples a step has is the sampler's to say; here it is only decided which of them are computed together. Every
process deals all of the step's samples in the same way and keeps its own hand, so nothing need be sent between them,
and every process makes as many forward passes as the others.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from mmbridge.data.batch import BadSample, Batch
from mmbridge.data.collate import Collate
from mmbridge.data.sample import Sample


@dataclass(frozen=True, slots=True)
class Dealing:
    """Makes this process's batches of all the samples of a step. It can be pickled if ``collate`` can.

    Args:
        budget: positions of one forward pass at most; a sample that is longer has one to itself.
        packed: positions are those of the samples; else of rows padded to the longest.
    """

    collate: Collate
    rank: int
    processes: int
    budget: int
    packed: bool

    def __call__(self, drawn: Sequence[Sample | BadSample]) -> list[Batch]:
        extents = [self.collate.extent(each) for each in drawn]
        deal = dealt if self.packed else grouped
        hands = deal(extents, self.processes, self.budget)
        return [self.collate([drawn[number] for number in sorted(numbers)]) for numbers in hands[self.rank]]


Extent = tuple[int, int, int]
"""Of a draw: positions when packed, texts, and positions of the longest."""

Hands = list[list[list[int]]]
"""For each process the numbers of the samples of each of its forward passes; all have as many passes."""


def dealt(extents: Sequence[Extent], processes: int, budget: int) -> Hands:
    """Forward passes of about equal length, as few as the budget allows: the longest first, each to where least is.

    (Graham's longest processing time rule, 1969: never more than 4/3 of the best.)
    """
    lengths = [extent[0] for extent in extents]
    budget = max([budget, *lengths])
    passes = max(1, -(-sum(lengths) // (budget * processes)))
    while True:
        bins: list[list[int]] = [[] for _ in range(passes * processes)]
        free = [(0, place) for place in range(len(bins))]
        for number in sorted(range(len(lengths)), key=lambda each: (-lengths[each], each)):
            filled, place = heapq.heappop(free)
            bins[place].append(number)
            heapq.heappush(free, (filled + lengths[number], place))
        if max(filled for filled, _ in free) <= budget:
            return [bins[process::processes] for process in range(processes)]
        passes += 1


def grouped(extents: Sequence[Extent], processes: int, budget: int) -> Hands:
    """Forward passes of samples of about equal length, so that rows padded to the longest have little padding."""
    order = sorted(range(len(extents)), key=lambda each: (-extents[each][2], each))
    bins: list[list[int]] = []
    rows, longest = 0, 0
    for number in order:
        _, texts, length = extents[number]
        if not bins or (rows + texts) * max(longest, length) > budget:
            bins.append([])
            rows, longest = 0, 0
        bins[-1].append(number)
        rows, longest = rows + texts, max(longest, length)
    bins += [[] for _ in range(-len(bins) % processes)]
    return [bins[process::processes] for process in range(processes)]
