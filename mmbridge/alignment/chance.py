"""What tokens that know nothing of each other score: directions drawn at random, as many as there were tokens.

A cosine between two of them has mean 0 and variance 1/D, and so has each in C; but the largest of many is not near 0,
and the more tokens there are the less so. Scores of token statistics are read against this.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmbridge.alignment.token_cosines import STATISTICS, Statistic, matched


def token_chance(
    mask: Tensor, text_mask: Tensor, width: int, statistics: Sequence[Statistic] = STATISTICS, *, seed: int = 0
) -> dict[Statistic, Tensor]:
    """``matched`` of Gaussian tokens in place of the measured ones: (S,) by statistic, on the masks' device.

    The same numbers on every device, drawn a sample at a time.

    Args:
        mask, text_mask: (S, M) and (S, L), true where a token is real.
        width: D.
        statistics: those asked for.
        seed: of the draws.

    Raises:
        DataError: as ``matched``.
    """
    random = torch.Generator().manual_seed(seed)
    found = [
        matched(*_drawn(here[None], width, random), *_drawn(there[None], width, random), statistics)
        for here, there in zip(mask, text_mask, strict=True)
    ]
    return {each: torch.cat([of[each] for of in found]) for each in statistics} if found else {}


def _drawn(mask: Tensor, width: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(*mask.shape, width, generator=random).to(mask.device), mask
