"""The optional scores of the logit lens: the words that states would say, how undecided they are, how far apart.

Symbols: N pairs of a medium and text, V words.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmbridge.alignment.distributions import entropy, kl
from mmbridge.alignment.lens import Lens
from mmbridge.alignment.lots import lots
from mmbridge.alignment.parts import Of, Part, resampled_curve
from mmbridge.alignment.report import Histogram, Words, some
from mmbridge.alignment.running import Side
from mmbridge.alignment.stored import StoredDepth
from mmbridge.evaluation.bootstrap import Floats
from mmbridge.llm.model import LanguageModel

BINS, WORDS = 40, 8
"""Of entropies; the likeliest ones told."""


def lens_parts(depths: Mapping[int, StoredDepth], of: Of, llm: LanguageModel) -> Iterator[Part]:
    """What words the LLM would say at every depth: which ones, how undecided each side's tokens are, and how far the
    two are apart, of the mean distributions of a pair's tokens."""
    lens, apart, others, spread = Lens(llm), list[Tensor](), list[Tensor](), list[Histogram]()
    entropies: tuple[list[Tensor], list[Tensor]] = [], []
    for depth, states in depths.items():
        read = _read(lens, states)
        apart.append(read.apart)
        others.append(read.others)
        for side in Side:
            entropies[side].append(torch.stack([each.double().mean() for each in read.entropies[side]]))
        spread.append(_spread(depth, of, [torch.cat(each).numpy() for each in read.entropies]))
        yield Words("words", depth, {name: _most(read.words[side], llm) for side, name in zip(Side, of, strict=True)})
    drawn = lots(torch.ones(len(apart[0]), dtype=torch.float64))
    for side, name in zip(Side, of, strict=True):
        found = drawn.means(torch.stack(entropies[side]))
        yield resampled_curve("entropy", (name,), depths, found, chance=math.log(llm.vocabulary))
    yield resampled_curve("kl", of, depths, drawn.means(torch.stack(apart)), drawn.means(torch.stack(others)))
    yield from some(spread)


@dataclass(frozen=True, slots=True)
class _Read:
    """What a lens sees at a depth: ``apart`` (N,) and ``others`` (N,), KL from perceptual tokens to the text beside
    them and to that of the pair before; of each side ``entropies``, N of (tokens,), and ``words`` (V,), log of the mean
    of the pairs' distributions."""

    apart: Tensor
    others: Tensor
    entropies: tuple[list[Tensor], list[Tensor]]
    words: tuple[Tensor, Tensor]


def _read(lens: Lens, states: StoredDepth) -> _Read:
    """Holds the distributions of three pairs at a time, for there may be many words."""
    count, apart, others = len(states.tokens[0]), list[Tensor](), list[Tensor]()
    entropies: tuple[list[Tensor], list[Tensor]] = [], []
    words = [torch.tensor(-torch.inf, dtype=torch.float64)] * 2
    before, _ = _said(lens, states.tokens[Side.TEXT][-1])
    for pair in range(count):
        means = []
        for side in Side:
            mean, undecided = _said(lens, states.tokens[side][pair])
            means.append(mean)
            entropies[side].append(undecided)
            words[side] = torch.logaddexp(words[side], mean - math.log(count))
        perceptual, text = means
        apart.append(kl(perceptual, text))
        others.append(kl(perceptual, before))
        before = text
    return _Read(torch.stack(apart), torch.stack(others), entropies, (words[0], words[1]))


def _said(lens: Lens, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """(V,) in float64, log of the mean distribution of some tokens; (tokens,), their entropies."""
    mean, undecided = torch.tensor(-torch.inf, dtype=torch.float64), list[Tensor]()
    for log_p in lens(tokens):
        undecided.append(entropy(log_p).cpu())
        mean = torch.logaddexp(mean, log_p.double().logsumexp(dim=0).cpu())
    return mean - math.log(len(tokens)), torch.cat(undecided)


def _most(words: Tensor, llm: LanguageModel) -> tuple[tuple[str, float], ...]:
    """The likeliest words and their shares."""
    shares, ids = words.exp().topk(min(WORDS, len(words)))
    texts = (str(llm.tokenizer.decode([number])) for number in ids.tolist())
    return tuple(zip(texts, map(float, shares), strict=True))


def _spread(depth: int, of: Of, entropies: list[Floats]) -> Histogram:
    edges = np.linspace(0, max(float(each.max()) for each in entropies), BINS + 1)
    counts = {
        name: tuple(map(float, np.histogram(each, edges)[0] / len(each)))
        for name, each in zip(of, entropies, strict=True)
    }
    return Histogram("entropy", depth, tuple(map(float, edges)), counts)
