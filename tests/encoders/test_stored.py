"""Features kept by medium and put together again are the features they were."""

import torch

from mmbridge.encoders.base import Features, Grid, Prepared, Stored, Tiling, Views
from mmbridge.encoders.stored import apart, together

LENGTHS = (6, 4, 5, 5, 6)


def ragged() -> Features:
    """Five views of three media: one by itself, three that tile one, and one; one token before the grid in each."""
    mask = torch.arange(6) < torch.tensor(LENGTHS)[:, None]
    values = torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(0)) * mask[..., None]
    grids = tuple(Grid(1, 1, length - 1) for length in LENGTHS)
    return Features(values, mask, grids, (None, Tiling(1, 2, 30, 40), None), prefix=1)


def assert_same(found: Features, expected: Features) -> None:
    assert torch.equal(found.values, expected.values)
    assert torch.equal(found.mask, expected.mask)
    assert (found.grids, found.tilings, found.prefix) == (expected.grids, expected.tilings, expected.prefix)


def test_apart_and_together_again() -> None:
    features = ragged()
    media = apart(features)
    assert [each.lengths for each in media] == [(6,), (4, 5, 5), (6,)]
    assert [len(each.values) for each in media] == [6, 14, 6]
    assert_same(together(media, None, features.values, prefix=1), features)


def test_some_encoded_before_and_some_not() -> None:
    """The first and the last are kept, the tiled one between them comes from the encoder."""
    features = ragged()
    first, tiled, last = apart(features)
    live = Features(
        features.values[1:4, :5], features.mask[1:4, :5], features.grids[1:4], (tiled.tiling,), prefix=1
    )  # as an encoder gives it that met nothing longer
    media: list[Prepared] = [first, Views(torch.zeros(3, 3, 2, 2), tiled.tiling), last]
    assert_same(together(media, live, features.values, prefix=1), features)


def test_the_result_is_in_the_number_format_asked_for() -> None:
    features = ragged()
    kept = [Stored(each.values.bfloat16(), each.lengths, each.grids, each.tiling) for each in apart(features)]
    found = together(kept, None, torch.empty(0), prefix=1)
    assert found.values.dtype is torch.float32
    assert torch.equal(found.values, features.values.bfloat16().float())
    assert not found.values.is_inference()
