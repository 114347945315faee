"""The benchmark of transport runs at a small size and finds what it reports."""

import pytest
from transport import WAYS, step, world


@pytest.mark.parametrize("way", WAYS)
def test_a_step_is_measured(way: str) -> None:
    found = step(3000, 64, 8, 1, way)
    assert found["CPU seconds"] > 0
    assert found["loss"] > 0
    assert (found["residual"] <= 1e-4) == (way == "to 1e-4")


def test_residuals_over_the_worlds_words() -> None:
    for row in world(16)["rows"].values():
        assert row["residual after 1"] >= row["residual after 3"] > row["residual after 100"]
        assert row["residual at 1e-04"] <= 1e-4
        assert 3 < row["iterations to 1e-04"] <= row["iterations to 1e-06"]
