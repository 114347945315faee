"""Trees: what samples that begin alike compute once.

Symbols: K samples of a tree, P positions they share, c_k positions that sample k has of its own, T0 constant positions.

Captions of an image, or questions about it, stand behind the same image and often the same words. Under a causal mask
what comes first does not depend on what follows, so it is computed once and every sample goes on from there: P + Σ c_k
positions instead of Σ (P + c_k), with the same losses and gradients. The idea is that of shared-prefix training

Prefix Grouper: Efficient GRPO Training through Shared-Prefix Forward
Zikang Liu, Tongtian Yue, Yepeng Tang, Longteng Guo, Junxian Cai, Qingbin Liu, Xi Chen, Jing Liu, arXiv 2506.05433

with media in the prefix. What every conversation of a stage begins with (a system message) does not even depend on the
sample: its keys and values are constant while the LLM is frozen.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmbridge.llm.reading import Reading

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tree:
    """Some samples of a batch in one sequence of ``length`` positions: the shared ones, then each sample's own.

    ``members`` are their numbers in the batch; ``constant`` is T0, ``shared`` is P without those, ``own`` are c_k.
    What follows the last position of a sample that predicts something is not part of it.
    """

    members: tuple[int, ...]
    constant: int
    shared: int
    own: tuple[int, ...]

    @property
    def length(self) -> int:
        return self.shared + sum(self.own)

    def depths(self) -> Places:
        """(length,) at each position, how many stand before it in its sample: its position id."""
        pieces = [np.arange(self.shared), *(self.shared + np.arange(count) for count in self.own)]
        return np.concatenate(pieces) + self.constant

    def places(self, member: int) -> Places:
        """Where the positions of a sample stand in the tree, up to its last; below zero for constant ones."""
        own = self.own[self.members.index(member)]
        start = self.shared + sum(self.own[: self.members.index(member)])
        return np.concatenate([np.arange(-self.constant, self.shared), np.arange(start, start + own)])

    def reads(self, rows: Places | None = None) -> NDArray[np.bool_]:
        """(rows, T0 + length) what these positions of the tree, or all, may attend to, the constant ones first."""
        branch = np.repeat(np.arange(1 + len(self.own)), [self.shared, *self.own])
        place = np.arange(self.length)
        asking = place if rows is None else rows
        earlier = asking[:, None] >= place
        same = (branch[asking][:, None] == branch) | (branch == 0)
        constant = np.ones((len(asking), self.constant), np.bool_)
        return np.concatenate([constant, earlier & same], axis=1)


def trees(readings: Sequence[Reading], constant: Sequence[int] = ()) -> list[Tree]:
    """Sorts the samples of a batch into trees.

    Samples share a tree if they read the same up to and into their first medium. Nothing supervised is shared, so that
    every sample predicts its own.

    Args:
        readings: of all samples.
        constant: token ids whose keys and values are at hand.
    """
    groups: dict[Hashable, list[int]] = {}
    for number, reading in enumerate(readings):
        begin = reading.codes[: reading.spans[0].start + 1].tobytes() if reading.spans else number
        groups.setdefault(begin, []).append(number)
    found = []
    for members in groups.values():
        alike = _alike([readings[number] for number in members]) if len(members) > 1 else 0
        if alike and alike > readings[members[0]].spans[0].start:
            found.append(_tree(readings, members, alike, constant))
        else:
            found += [_tree(readings, [each], readings[each].length, constant) for each in members]
    return [tree for tree in found if tree.length]


def _tree(readings: Sequence[Reading], members: Sequence[int], common: int, constant: Sequence[int]) -> Tree:
    """Of samples whose first ``common`` positions are alike."""
    chosen = [readings[number] for number in members]
    begin = len(constant)
    first = min((int(each.predicting[0]) for each in chosen if len(each.predicting)), default=0)
    known = 0 < begin <= first and begin < common and np.array_equal(chosen[0].codes[:begin], constant)
    front = begin if known else 0
    return Tree(tuple(members), front, common - front, tuple(each.length - common for each in chosen))


def _alike(readings: Sequence[Reading]) -> int:
    """How many positions at the beginning all have in common, none of them supervised."""
    first, *others = readings
    common = min(_unsupervised(each) for each in readings)
    for other in others:
        differs = first.codes[:common] != other.codes[:common]
        common = int(differs.argmax()) if differs.any() else common
    return common


def _unsupervised(reading: Reading) -> int:
    """How many positions stand before the first supervised one that counts."""
    places = reading.predicting
    return int(places[0]) + 1 if len(places) else 0
