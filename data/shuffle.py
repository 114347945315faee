"""A random order of many things that need not be held in memory.

How to Construct Pseudorandom Permutations from Pseudorandom Functions. Michael Luby, Charles Rackoff, SIAM J. Comput.,
1988. Ciphers with Arbitrary Finite Domains. John Black, Phillip Rogaway, CT-RSA 2002.
"""

from collections.abc import Sequence
from math import isqrt

import numpy as np

WHOLE = 2**19
"""Up to so many things are shuffled in memory: 2 MB, and a few milliseconds."""
_ROUNDS = 8
"""Fewer leave pairs of places unequally likely in orders as short as 20, as a chi-square test shows."""


class Shuffle:
    """The numbers below ``length`` in a random order, a pure function of ``key``.

    More than ``WHOLE`` are not shuffled: each place is worked out when it is asked for, by a Feistel network over a
    rectangle of at least as many places, whose round functions are tables of random numbers. Places past the end are
    sent through again until they fall below it. Time to begin and memory grow with √length, time for a place does not
    grow.
    """

    def __init__(self, length: int, key: Sequence[int]) -> None:
        random = np.random.default_rng(key)
        self._length = length
        self._order = random.permutation(length).astype(np.int32) if length <= WHOLE else None
        if self._order is None:
            self._rows = isqrt(length)
            self._columns = -(-length // self._rows)
            self._rounds = [
                (random.integers(self._rows, size=self._columns), random.integers(self._columns, size=self._rows))
                for _ in range(_ROUNDS // 2)
            ]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: int, /) -> int:
        """The number at a place."""
        if not 0 <= place < self._length:
            raise IndexError(place)
        if self._order is not None:
            return int(self._order[place])
        place = self._moved(place)
        while place >= self._length:
            place = self._moved(place)
        return place

    def _moved(self, place: int) -> int:
        row, column = divmod(place, self._columns)
        for down, across in self._rounds:
            row = (row + int(down[column])) % self._rows
            column = (column + int(across[row])) % self._columns
        return row * self._columns + column
