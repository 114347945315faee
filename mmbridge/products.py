"""Matrix products as they follow from each other, and what each takes forward and backward; nothing is computed.

A product of so many multiply-adds takes as many again in the backward pass for every operand that has to have a
gradient, which is one that something trains in or in front of, wherever its result's gradient is asked for.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn

from mmbridge.matrices import Matrix, matrices


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """Numbers that are made of those of ``sources``; ``learns`` says whether something in or before them trains.

    ``size`` counts the multiply-adds of the product that they are, whose operands are the sources; 0 for what is none.
    """

    learns: bool
    sources: tuple["Value", ...] = ()
    size: int = 0

    def cost(self, asked: bool) -> int:
        """Multiply-adds forward and, if its gradient is asked for, backward."""
        return self.size * (1 + asked * sum(source.learns for source in self.sources))


class Products:
    """All products that are made, in any order; methods say what comes of them."""

    def __init__(self) -> None:
        self._made: list[Value] = []

    def of(self, size: int, left: Value, right: Value) -> Value:
        found = Value(left.learns or right.learns, (left, right), size)
        self._made.append(found)
        return found

    def matrix(self, matrix: Matrix, places: int, value: Value) -> Value:
        return self.of(places * matrix.size, value, Value(matrix.trains))

    def linear(self, linear: nn.Linear, places: int, value: Value) -> Value:
        """With the bias."""
        (matrix,) = matrices(linear)
        return joined(self.matrix(matrix, places, value), trains=trains(linear))

    def executed(self, asked: Iterable[Value]) -> int:
        """Multiply-adds of all that is made, and of the backward pass from ``asked``."""
        learning = _behind(asked, lambda value: value.learns)
        return sum(each.cost(each in learning) for each in self._made)

    def needed(self, asked: Iterable[Value], looked: Iterable[Value] = ()) -> int:
        """The same of what ``asked``, and ``looked`` at without a gradient, cannot be had without."""
        asked = [*asked]
        learning, read = _behind(asked, lambda value: value.learns), _behind([*asked, *looked], lambda _: True)
        return sum(each.cost(each in learning) for each in self._made if each in read)


def joined(*values: Value, trains: bool = False) -> Value:
    """What is made of several without a product: sums, norms, rows one below the other."""
    return Value(trains or any(each.learns for each in values), values)


def trains(*parts: nn.Module | nn.Parameter | None) -> bool:
    """Whether anything in them does."""
    parameters = ([part] if isinstance(part, nn.Parameter) else part.parameters() for part in parts if part is not None)
    return any(each.requires_grad for found in parameters for each in found)


def _behind(values: Iterable[Value], through: Callable[[Value], bool]) -> set[Value]:
    """These values and all that they are made of, as far as one comes through such values."""
    found, waiting = set[Value](), [*values]
    while waiting:
        value = waiting.pop()
        if value not in found and through(value):
            found.add(value)
            waiting.extend(value.sources)
    return found
