"""Words that are said of media, as the LLM's input embeddings. None has a gradient, be the embeddings trained or not.

Symbols: S texts, L tokens of the longest, D_llm the width of the LLM's input embeddings.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmbridge.llm.model import LanguageModel
from mmbridge.ranks import ALONE, Ranks


def texts_of_all(texts: Sequence[Sequence[int]], ranks: Ranks = ALONE) -> tuple[Tensor, ...]:
    """Token ids of each of the texts of all processes, by rank."""
    ids = torch.tensor([token for text in texts for token in text], dtype=torch.long)
    lengths = torch.tensor([len(text) for text in texts], dtype=torch.long)
    return torch.split(torch.cat(ranks.rows(ids)), torch.cat(ranks.rows(lengths)).tolist())


def padded(texts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Texts behind which zeros stand, and where they are real, both (S, L); (0, 1) for none."""
    if not texts:
        return torch.zeros(0, 1, dtype=torch.long), torch.zeros(0, 1, dtype=torch.bool)
    ids = pad_sequence([*texts], batch_first=True)
    return ids, torch.arange(ids.shape[1]) < torch.tensor([len(text) for text in texts])[:, None]


@torch.no_grad()
def embedded(llm: LanguageModel, ids: Tensor) -> Tensor:
    """Token ids (…) to (…, D_llm). Where ZeRO-3 keeps the embeddings in parts, all processes call."""
    return llm.embed(ids)
