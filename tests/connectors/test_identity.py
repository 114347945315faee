"""The resampler that changes nothing."""

import numpy as np
import pytest
import torch

from mmbridge.connectors.identity import Identity
from mmbridge.encoders.base import Grid
from tests.connectors.samples import facts, features


@pytest.mark.proof("identity", against="NumPy: the same array at every real token, zeros elsewhere")
def test_real_tokens_stay() -> None:
    seen = features(Grid(1, 2, 3), Grid(1, 2, 2), prefix=1)
    out = Identity()(seen)
    assert np.array_equal(out.values.numpy(), np.nan_to_num(seen.values.numpy(), nan=0.0))
    assert torch.equal(out.mask, seen.mask)
    assert (out.grids, out.tilings, out.prefix) == (seen.grids, seen.tilings, 1)


def test_facts_stay() -> None:
    described = facts(Grid(1, 2, 3), prefix=2)
    assert Identity().facts(described) == described
    assert Identity().grid(Grid(1, 4, 4)) == Grid(1, 4, 4)
