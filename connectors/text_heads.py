"""What a Q-Former's text branch is trained by, beside its blocks: a space to compare in, a judge, a head over words.

BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and Large Language Models
Junnan Li, Dongxu Li, Silvio Savarese, Steven Hoi, arXiv 2301.12597

Symbols: R rows, M queries, L text tokens, W width of the Q-Former, C width of the shared space, K words.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmbridge.connectors.bert_blocks import EPSILON

TEMPERATURE = 0.07
"""What similarities are divided by, to begin with."""


class TextHeads(nn.Module):
    """Parameters are named ``image.*``, ``text.*`` and ``temperature`` (the space), ``match.*`` (the judge), and
    ``transform.*``, ``norm.*`` and ``bias`` (the head over words, which has the words' embeddings for a matrix)."""

    def __init__(self, width: int, shared: int, vocabulary: int) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(width, shared), nn.Linear(width, shared)
        self.temperature = nn.Parameter(torch.full((1,), TEMPERATURE))
        self.match = nn.Linear(width, 2)
        self.transform, self.norm = nn.Linear(width, width), nn.LayerNorm(width, EPSILON)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def images(self, queries: Tensor) -> Tensor:
        """(R, M, W) to directions (R, M, C) of length 1."""
        return functional.normalize(self.image(queries), dim=-1)

    def texts(self, first: Tensor) -> Tensor:
        """A text's first token (R, W) to a direction (R, C) of length 1."""
        return functional.normalize(self.text(first), dim=-1)

    def matches(self, queries: Tensor) -> Tensor:
        """(R, M, W) beside a text to logits (R, 2) of no match and match: the mean over the queries."""
        logits: Tensor = self.match(queries)
        return logits.mean(dim=1)

    def words(self, states: Tensor, table: Tensor) -> Tensor:
        """(…, W) to logits (…, K) of the next word; ``table`` (K, W) are the words' own embeddings."""
        return functional.linear(self.norm(functional.gelu(self.transform(states))), table, self.bias)


def similarities(images: Tensor, texts: Tensor) -> Tensor:
    """Images (R, M, C) and texts (T, C) to (R, T): of each text, the query nearest to it."""
    return (images @ texts.T).amax(dim=1)
