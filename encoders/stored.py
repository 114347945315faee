"""Features taken apart into those of single media, which can be kept, and put together again.

Symbols as in ``mmbridge.encoders.base``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmbridge.encoders.base import Features, Grid, Prepared, Stored, views_per_medium


def apart(features: Features) -> list[Stored]:
    """The features of each medium, without the padding behind the real tokens of a view."""
    lengths: list[int] = features.mask.sum(dim=1).tolist()
    assert all(bool(row[:length].all()) for row, length in zip(features.mask, lengths, strict=True))
    media, start = [], 0
    for tiling, count in zip(features.tilings, views_per_medium(features.tilings), strict=True):
        rows = slice(start, start + count)
        values = [row[:length] for row, length in zip(features.values[rows], lengths[rows], strict=True)]
        whole = values[0] if count == 1 else torch.cat(values)
        media.append(Stored(whole, tuple(lengths[rows]), features.grids[rows], tiling))
        start += count
    return media


@torch.no_grad()
def together(media: Sequence[Prepared], live: Features | None, like: Tensor, prefix: int) -> Features:
    """The features of several media, some of them encoded before.

    Args:
        media: all of them, in order.
        live: the features of those among them that were to be encoded, in order; ``None`` if there were none.
        like: has the device and the number format of the result.
        prefix: tokens that stand before the grid in every row.
    """
    kept = [one for one in media if isinstance(one, Stored)]
    moved = torch.cat([one.values for one in kept]).to(like.device, like.dtype)  # all of them in one go
    values = iter(torch.split(moved, [len(one.values) for one in kept]))
    fresh = iter(apart(live) if live is not None else ())
    rows, lengths, grids = list[Tensor](), list[int](), list[Grid]()
    for medium in media:
        stored = medium if isinstance(medium, Stored) else next(fresh)
        own = next(values) if stored is medium else stored.values.to(like)
        rows += torch.split(own, list(stored.lengths))
        lengths += stored.lengths
        grids += stored.grids
    padded = pad_sequence(rows, batch_first=True)  # (V, N, D_enc)
    mask = torch.arange(padded.shape[1]) < torch.tensor(lengths)[:, None]
    return Features(padded, mask.to(like.device), tuple(grids), tuple(one.tiling for one in media), prefix)
