"""Paired timing on a clock that only the variants move."""

import pytest
from paired import AGAIN, lines, paired


def test_ratios_are_of_rounds_and_the_order_rotates() -> None:
    now, order = [0.0], list[str]()

    def taking(name: str, seconds: float) -> None:
        order.append(name)
        now[0] += seconds * (1 + len(order) // 4)  # the machine slows down from one round to the next

    variants = {"slow": lambda: taking("slow", 3.0), "fast": lambda: taking("fast", 1.0)}
    figures = paired(variants, 3, lambda: now[0])
    assert order[:2] == ["slow", "fast"]  # to warm up
    assert order[2:] == ["slow", "fast", "slow", "fast", "slow", "slow", "slow", "slow", "fast"]
    assert figures.keys() == {"slow", "fast", "slow" + AGAIN}
    assert figures["fast"]["speed-up"][0] == pytest.approx(3.0)
    assert "× 3.00" in lines(figures)[1]


def test_the_spread_is_from_ten_to_ninety_per_cent_of_the_rounds() -> None:
    now, calls = [0.0], [0]

    def longer_every_round() -> None:
        """Runs once to warm up and twice a round."""
        now[0] += (calls[0] + 1) // 2
        calls[0] += 1

    def always_one() -> None:
        now[0] += 1

    figures = paired({"first": longer_every_round, "second": always_one}, 11, lambda: now[0])
    assert figures["second"]["speed-up"] == pytest.approx([6.0, 2.0, 10.0])
    assert figures["first" + AGAIN]["speed-up"] == [1.0, 1.0, 1.0]
    assert (figures["first"]["seconds"], figures["second"]["seconds"]) == (6.0, 1.0)
