"""Sinkhorn's divergence between perceptual tokens and the words that are said of media, as sets.

Interpolating between Optimal Transport and MMD using Sinkhorn Divergences
Jean Feydy, Thibault Séjourné, François-Xavier Vialard, Shun-ichi Amari, Alain Trouvé, Gabriel Peyré, arXiv 1810.08278

Words are the LLM's input embeddings, the cost is 1 − cos, and the LLM does not run. ``mmbridge.transport.divergence``
has the divergence: zero where both sets are the same directions, equally often.

Symbols: S samples of this process that show a medium, N perceptual tokens, K different words.

Decided here: all that the assistant says is said of the media. In pairs, a sample's first medium is what its text is
about.
"""

import torch
from torch import Tensor

from mmbridge.data.batch import Batch
from mmbridge.joint import joint
from mmbridge.objectives.base import Reads
from mmbridge.objectives.run import BatchRun, showing
from mmbridge.objectives.words import embedded, padded, texts_of_all
from mmbridge.transport.divergence import cosine_cost, sinkhorn_divergence
from mmbridge.transport.plan import uniform


class _Divergence:
    """Of plans whose entropy weighs ``epsilon``, in units of the cost, and whose marginals keep to a ``tolerance``."""

    def __init__(self, epsilon: float, tolerance: float) -> None:
        self._epsilon, self._tolerance = epsilon, tolerance

    def terms(self, batch: Batch) -> int:
        return len(showing(batch))

    def _between(self, tokens: Tensor, words: Tensor, *weights: Tensor | None) -> Tensor:
        return sinkhorn_divergence(tokens, words, self._epsilon, *weights, cost=cosine_cost, tolerance=self._tolerance)


class BatchDivergence(_Divergence):
    """Between the tokens of all looks of a batch, each look once, and all words said of them, as often as they are.

    Both are those of all processes, so that these have the loss and the gradient of one. But it is no sum over samples:
    it has as many terms as there are, each of the whole batch's divergence, and a step of several batches, by
    ``accumulate`` or ``budget``, has the mean of theirs, weighed by samples, which is not that of one big batch.
    """

    joint = True
    reads = (Reads("perceived"), Reads("divergence"))

    def __call__(self, run: BatchRun) -> Tensor:
        tokens = joint(run.perceived.every(), run.ranks)
        said = torch.cat([torch.zeros(0, dtype=torch.long), *texts_of_all(run.texts, run.ranks)])
        ids, counts = torch.unique(said, return_counts=True)
        words = embedded(run.bridge.llm, ids)
        if not (len(tokens) and len(words)):
            return run.perceived.nothing()
        weights = (counts / len(said)).to(words.device)
        return len(run.seen) * self._between(tokens, words, None, weights) + run.perceived.nothing()


class PairDivergence(_Divergence):
    """One term for each sample that shows a medium: between the tokens of its first medium and its words."""

    joint = False
    reads = (Reads("perceived"), Reads("paired divergence"))

    def __call__(self, run: BatchRun) -> Tensor:
        ids, real = padded(texts_of_all(run.texts))
        words = embedded(run.bridge.llm, ids)
        if not run.seen:
            return run.perceived.nothing()
        tokens, mask = run.perceived.first(run.seen)
        found = self._between(tokens, words, uniform(mask), uniform(real.to(words.device)))
        return found.sum() + run.perceived.nothing()
