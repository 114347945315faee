"""Assignment prediction: what a medium and its caption say, each told in words of the LLM, predicts the other's.

Bridging Vision and Language Spaces with Assignment Prediction
Jungin Park, Jiyoung Lee, Kwanghoon Sohn, arXiv 2404.09632 (VLAP: words as prototypes, their frequencies as a marginal)

Unsupervised Learning of Visual Features by Contrasting Cluster Assignments
Mathilde Caron, Ishan Misra, Julien Mairal, Priya Goyal, Piotr Bojanowski, Armand Joulin, arXiv 2006.09882
(SwAV: swapped prediction, uniform marginals)

Symbols: B samples, K words, D width, s (B, K) cosines of samples with words, μ (K) the share of each word.

differs from VLAP's released code: its loop multiplies by the words' marginal without dividing by what words have, and
comes to softmax(s / ε + 3 log μ), each sample for itself. That is ``released``; ``assigned`` is the paper's transport.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmbridge.ranks import ALONE, Ranks
from mmbridge.transport.plan import log
from mmbridge.transport.prototypes import CHUNK, cosines
from mmbridge.transport.sinkhorn import sinkhorn


@dataclass(frozen=True, slots=True)
class Assignment:
    """``shares`` (B, K): how much of each sample goes to each word, 1 in all; none of it has a gradient.

    ``residual``: Σ|what words get − μ| + Σ|what samples give − 1/B| over all samples assigned together, between 0 and 2
    where every sample gives its own. ``iterations``: how many were run.
    """

    shares: Tensor
    residual: float
    iterations: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """``losses`` (B,) in float32: ½ [CE(q of the caption, p of the medium) + CE(q of the medium, p of the caption)].

    Attributes:
        losses: of each sample of this process.
        residual: the larger one of both assignments'.
        iterations: of the longer one of both assignments.
    """

    losses: Tensor
    residual: float
    iterations: int


def word_marginal(frequencies: Tensor, temperature: float = 0.25) -> Tensor:
    """μ = softmax(frequencies / temperature): (K,) to (K,), in float32."""
    return (frequencies.float() / temperature).softmax(-1)


@torch.no_grad()
def assigned(
    scores: Tensor,
    marginal: Tensor | None = None,
    *,
    epsilon: float = 0.01,
    iterations: int | None = 3,
    tolerance: float = 1e-4,
    most: int = 1000,
) -> Assignment:
    """The entropic plan that gives words their share and samples an equal one.

    Args:
        scores: (B, K), cosines; without samples nothing is assigned.
        marginal: μ (K,) of total 1, zero for words that are out of the question; uniform where left out.
        epsilon: the entropy's weight, in units of the scores.
        iterations: VLAP's 3, or None to run to the tolerance.
        tolerance: of the residual.
        most: iterations at which the tolerance is given up.
    """
    if not len(scores):
        return Assignment(scores, 0.0, 0)
    found = sinkhorn(-scores.mT, epsilon, marginal, iterations=iterations, tolerance=tolerance, most=most)
    return Assignment(found.plan.mT.mul_(len(scores)), float(found.residual), found.iterations)


def swav(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Assignment:
    """SwAV's: every word, or prototype, is worth the same, and three iterations are enough. ``scores`` (B, K)."""
    return assigned(scores, epsilon=epsilon, iterations=iterations)


@torch.no_grad()
def released(scores: Tensor, marginal: Tensor, *, epsilon: float = 0.01, iterations: int = 3) -> Assignment:
    """What VLAP's released loop comes to: softmax(s / ε + iterations · log μ). Takes what ``assigned`` does."""
    shares = (scores / epsilon).add_(iterations * log(marginal.to(scores))).softmax(-1)
    off = float((shares.mean(0) - marginal).abs().sum()) if len(scores) else 0.0
    return Assignment(shares, off, iterations)


@dataclass(frozen=True, slots=True)
class AssignmentPrediction:
    """VLAP's loss over an LLM's word embeddings, which are read where they are.

    Attributes:
        table: (K, D), the frozen word embeddings, in any dtype.
        marginal: μ (K,); uniform where left out.
        epsilon: the entropy's weight.
        temperature: of the predictions.
        iterations: of the assignment; None to run it to the tolerance.
        tolerance: of the assignment's residual, which says in the end whether it was reached.
        as_released: assign as the released code does; needs ``marginal`` and ``iterations``.
        chunk: words that are unpacked at a time.
    """

    table: Tensor
    marginal: Tensor | None = None
    epsilon: float = 0.01
    temperature: float = 0.01
    iterations: int | None = 3
    tolerance: float = 1e-4
    as_released: bool = False
    chunk: int = CHUNK

    def __call__(self, media: Tensor, captions: Tensor, ranks: Ranks = ALONE) -> Prediction:
        """The losses of matching vectors (B, D) of media and captions; neither needs to be of length 1.

        Samples are assigned together with those of the other processes, all of which must call. Summed over all
        processes, gradients are those of one process with all samples.
        """
        seen, said = (cosines(each, self.table, self.chunk) for each in (media, captions))
        of_media, of_captions = (self._assignment(*each, ranks) for each in ((media, seen), (captions, said)))
        losses = _cross_entropy(of_captions.shares, seen, self.temperature)
        losses = (losses + _cross_entropy(of_media.shares, said, self.temperature)) / 2
        residual = max(of_media.residual, of_captions.residual)
        return Prediction(losses, residual, max(of_media.iterations, of_captions.iterations))

    def _assignment(self, vectors: Tensor, scores: Tensor, ranks: Ranks) -> Assignment:
        """Of this process's samples, among those of all."""
        scores = scores.detach()
        if self.as_released:
            assert self.marginal is not None
            assert self.iterations is not None
            return released(scores, self.marginal, epsilon=self.epsilon, iterations=self.iterations)
        first, count = 0, len(scores)
        if ranks.count > 1:
            parts = ranks.rows(vectors.detach().cpu())
            first = sum(map(len, parts[: ranks.rank]))
            scores = cosines(torch.cat(parts).to(scores.device), self.table, self.chunk)
        found = assigned(
            scores, self.marginal, epsilon=self.epsilon, iterations=self.iterations, tolerance=self.tolerance
        )
        return Assignment(found.shares[first : first + count], found.residual, found.iterations)


def _cross_entropy(shares: Tensor, scores: Tensor, temperature: float) -> Tensor:
    """−Σ q log softmax(s / τ) of shares q (B, K) of total 1 and scores (B, K): (B,)."""
    return torch.logsumexp(scores / temperature, -1) - (shares * scores).sum(-1) / temperature
