"""Colours that stay apart for every eye, on light and on dark ground.

Up to eight are those of Okabe and Ito (2008, "Color universal design"), but for the yellow, which is darker on light
ground, and the black, which is light on dark ground. More are a ramp between three of them that grows lighter, so that
checkpoints of one run are read in their order. Marks differ too.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Colour:
    """``#rrggbb`` on light and on dark ground."""

    light: str
    dark: str


_APART = (
    Colour("#0072b2", "#2a94d6"),
    Colour("#d55e00", "#d55e00"),
    Colour("#009e73", "#009e73"),
    Colour("#cc79a7", "#cc79a7"),
    Colour("#e69f00", "#e69f00"),
    Colour("#56b4e9", "#8fd0f5"),
    Colour("#000000", "#ffffff"),
    Colour("#a39a00", "#f0e442"),
)
_RAMP = ((0x00, 0x72, 0xB2), (0xCC, 0x79, 0xA7), (0xE6, 0x9F, 0x00))
MARKS = "osD^"
"""Circle, square, diamond and triangle, as matplotlib calls them."""


def colours(count: int) -> list[Colour]:
    """As many as there are bridges or groups."""
    if count <= len(_APART):
        return list(_APART[:count])
    return [Colour(each, each) for each in (_between(place / (count - 1)) for place in range(count))]


def _between(place: float) -> str:
    """The colour at ``place``, from 0 to 1, of the ramp."""
    whole, part = divmod(place * (len(_RAMP) - 1), 1)
    first, second = _RAMP[int(whole)], _RAMP[min(int(whole) + 1, len(_RAMP) - 1)]
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(first, second, strict=True))
