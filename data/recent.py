"""What was made last, kept in case it is asked for again."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """The ``most`` things asked for last, by their keys. Sent to another process it arrives empty."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._made: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The thing of a key, made if it is not there; the one not asked for the longest makes room."""
        if key not in self._made:
            while len(self._made) >= self._most:
                self._made.popitem(last=False)
            self._made[key] = make()
        self._made.move_to_end(key)
        return self._made[key]

    def __reduce__(self) -> tuple[type["Recent[T]"], tuple[int]]:
        return type(self), (self._most,)
