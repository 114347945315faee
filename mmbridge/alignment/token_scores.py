"""The optional scores that read every stored token: cosines of all pairs of tokens, MIR, the logit lens.

Symbols: N pairs of a medium and text, V vocabulary.
"""

import math
from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mmbridge.alignment import token_cosines
from mmbridge.alignment.chance import token_chance
from mmbridge.alignment.distributions import entropy, kl
from mmbridge.alignment.lens import Lens
from mmbridge.alignment.lots import lots
from mmbridge.alignment.mir import mir, mir_term
from mmbridge.alignment.parts import Of, Part, estimated_curve, resampled_curve
from mmbridge.alignment.report import Histogram, Scalar
from mmbridge.alignment.resampled import Rows, without_some
from mmbridge.alignment.running import Side
from mmbridge.alignment.stored import StoredDepth
from mmbridge.alignment.token_cosines import Statistic
from mmbridge.evaluation.bootstrap import Estimate, Floats
from mmbridge.llm.model import LanguageModel

Depths = Mapping[int, StoredDepth]

STATISTICS: tuple[Statistic, ...] = ("median", "max", "min", "max_mean")
"""Of the cosines of a pair's tokens; their mean is among the default scores."""
BINS = 40


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
            other = drawn.other_pairs(pairs, matched)
            score = f"ima_{name}{at}"
            yield resampled_curve(score, of, matrices, drawn.all_pairs(pairs), other, level)
            yield resampled_curve(f"{score}_matched", of, matrices, drawn.means(matched), other, level)


def mir_parts(depths: Depths, of: Of) -> Iterator[Part]:
    """MIR's term at every depth and their logarithm; beside them what the text is from itself, in two halves."""
    count = len(next(iter(depths.values())).tokens[0])
    inside = {depth: each for depth, each in depths.items() if depth > 0}

    def term(states: StoredDepth, pairs: Rows) -> float:
        return mir_term(states.cloud(Side.PERCEPTUAL, pairs), states.cloud(Side.TEXT, pairs))

    def halves(states: StoredDepth, pairs: Rows) -> float:
        return mir_term(*(states.cloud(Side.TEXT, pairs[part::2]) for part in (0, 1)))

    values = {depth: without_some(partial(term, each), count) for depth, each in inside.items()}
    control = [without_some(partial(halves, each), count) for each in inside.values()]
    yield estimated_curve("mir_term", of, values, control)
    whole = [[each.value for each in values.values()], [each.value for each in control]]
    lows, highs = ([getattr(each, end) for each in values.values()] for end in ("low", "high"))
    ends = ([getattr(each, end) for each in control] for end in ("low", "high"))
    yield Scalar("mir", of, _logarithm(whole[0], lows, highs), _logarithm(whole[1], *ends))


def lens_parts(depths: Depths, of: Of, llm: LanguageModel) -> Iterator[Part]:
    """What words the LLM would say at every depth: how undecided each side's tokens are, and how far the two are apart,
    of the mean distributions of a pair's tokens."""
    lens, apart, shuffled, spread = Lens(llm), list[Tensor](), list[Tensor](), list[Histogram]()
    entropies: tuple[list[Tensor], list[Tensor]] = [], []
    for depth, states in depths.items():
        means: list[list[Tensor]] = [[], []]
        every: list[list[Tensor]] = [[], []]
        for side in Side:
            for tokens in states.tokens[side]:
                log_p = torch.cat([*lens(tokens)])
                every[side].append(entropy(log_p).cpu())
                means[side].append((log_p.double().logsumexp(dim=0) - math.log(len(log_p))).cpu())
            entropies[side].append(torch.stack([each.double().mean() for each in every[side]]))
        perceptual, text = (torch.stack(each) for each in means)
        apart.append(kl(perceptual, text))
        shuffled.append(kl(perceptual, text.roll(1, 0)))
        spread.append(_spread(depth, of, [torch.cat(each).numpy() for each in every]))
    drawn = lots(torch.ones(len(shuffled[0]), dtype=torch.float64))
    for side, name in zip(Side, of, strict=True):
        found = drawn.means(torch.stack(entropies[side]))
        yield resampled_curve("entropy", (name,), depths, found, chance=math.log(llm.vocabulary))
    yield resampled_curve("kl", of, depths, drawn.means(torch.stack(apart)), drawn.means(torch.stack(shuffled)))
    yield from (spread[place] for place in sorted({0, len(spread) // 2, len(spread) - 1}))


def _logarithm(values: list[float], lows: list[float], highs: list[float]) -> Estimate:
    return Estimate(mir(values), mir(lows), mir(highs))


def _spread(depth: int, of: Of, entropies: list[Floats]) -> Histogram:
    edges = np.linspace(0, max(float(each.max()) for each in entropies), BINS + 1)
    counts = {
        name: tuple(map(float, np.histogram(each, edges)[0] / len(each)))
        for name, each in zip(of, entropies, strict=True)
    }
    return Histogram("entropy", depth, tuple(map(float, edges)), counts)
