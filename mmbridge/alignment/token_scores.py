"""The optional scores that compare every stored token with others: cosines of all pairs of tokens, MIR."""

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from mmbridge.alignment import token_cosines
from mmbridge.alignment.chance import token_chance
from mmbridge.alignment.lots import lots
from mmbridge.alignment.mir import mir, mir_term
from mmbridge.alignment.parts import Of, Part, estimated_curve, resampled_curve
from mmbridge.alignment.report import Scalar
from mmbridge.alignment.resampled import Rows, without_some
from mmbridge.alignment.running import Side
from mmbridge.alignment.stored import StoredDepth
from mmbridge.alignment.token_cosines import Statistic
from mmbridge.evaluation.bootstrap import Estimate

Depths = Mapping[int, StoredDepth]

STATISTICS: tuple[Statistic, ...] = ("median", "max", "min", "max_mean")
"""Of the cosines of a pair's tokens; their mean is among the default scores."""


def token_parts(depths: Depths, of: Of) -> Iterator[Part]:
    """IMA by other statistics than the mean, of tokens of one depth and of perceptual tokens at the input."""
    first = next(iter(depths.values()))
    perceptual, mask = first.padded(Side.PERCEPTUAL)
    chance = token_chance(mask, first.padded(Side.TEXT)[1], perceptual.shape[-1], STATISTICS)
    drawn = lots(torch.ones(len(mask), dtype=torch.float64))
    for at in ("", "_input"):
        found: dict[Statistic, dict[int, Tensor]] = {name: {} for name in STATISTICS}
        for depth, states in depths.items():
            read, text = (first if at else states).padded(Side.PERCEPTUAL), states.padded(Side.TEXT)
            if read[0].shape[-1] == text[0].shape[-1]:
                for name, pairs in token_cosines.crossed(*read, *text, STATISTICS).items():
                    found[name][depth] = pairs.double()
        for name, matrices in found.items():
            pairs, level = torch.stack([*matrices.values()]), float(chance[name].mean())
            matched = torch.diagonal(pairs, dim1=-2, dim2=-1)
            other = drawn.other_pairs(pairs)
            score = f"ima_{name}{at}"
            yield resampled_curve(score, of, matrices, drawn.all_pairs(pairs), other, level)
            yield resampled_curve(f"{score}_matched", of, matrices, drawn.means(matched), other, level)


def mir_parts(depths: Depths, of: Of) -> Iterator[Part]:
    """MIR's term at every depth and their logarithm; beside them what so many tokens of one cloud would be apart: two
    halves of the texts, whose fewer tokens lift it by as much as it is brought down."""
    count = len(next(iter(depths.values())).tokens[0])
    inside = {depth: each for depth, each in depths.items() if depth > 0}

    def term(states: StoredDepth, pairs: Rows) -> float:
        return mir_term(states.cloud(Side.PERCEPTUAL, pairs), states.cloud(Side.TEXT, pairs))

    def halves(states: StoredDepth, pairs: Rows) -> float:
        clouds = [states.cloud(Side.TEXT, pairs[part::2]) for part in (0, 1)]
        read = [sum(len(states.tokens[side][pair]) for pair in pairs) for side in Side]
        return mir_term(*clouds) * sum(1 / count for count in read) / sum(1 / len(cloud) for cloud in clouds)

    values = {depth: without_some(partial(term, each), count) for depth, each in inside.items()}
    control = [without_some(partial(halves, each), count) for each in inside.values()]
    yield estimated_curve("mir_term", of, values, control)
    whole = [[each.value for each in values.values()], [each.value for each in control]]
    lows, highs = ([getattr(each, end) for each in values.values()] for end in ("low", "high"))
    ends = ([getattr(each, end) for each in control] for end in ("low", "high"))
    yield Scalar("mir", of, _logarithm(whole[0], lows, highs), _logarithm(whole[1], *ends))


def _logarithm(values: list[float], lows: list[float], highs: list[float]) -> Estimate:
    return Estimate(mir(values), mir(lows), mir(highs))
