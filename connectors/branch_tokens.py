"""Texts as a connector's text branch reads them."""

from collections.abc import Sequence
from itertools import count

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

NOTHING = (0, 0)
"""The text of a medium that holds nothing: its place is taken so that every process runs the same modules."""


class BranchTokenizer:
    """Token ids between a beginning and an end, cut to ``length``. Goes to loader workers.

    BERT's tokenizer has both, ``[CLS]`` and ``[SEP]``. Whatever a tokenizer lacks gets an id behind its ``words``;
    ``generate``, which stands in the beginning's place where the text is to be predicted (BLIP-2's ``[DEC]``), always
    does. ``vocabulary`` counts all of them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, length: int, words: int) -> None:
        self._tokenizer, self._length = tokenizer, length
        behind = count(words)
        begin, end = tokenizer.cls_token_id, tokenizer.sep_token_id
        self.begin: int = next(behind) if begin is None else begin
        self.end: int = next(behind) if end is None else end
        self.generate = next(behind)
        self.vocabulary = next(behind)

    def __call__(self, text: str) -> tuple[int, ...]:
        ids: Sequence[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return (self.begin, *ids[: self._length - 2], self.end)


def padded(texts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """R ≥ 1 texts of token ids as (R, L), padded behind, and (R, L), true where they are real."""
    lengths = torch.tensor([len(text) for text in texts], device=device)
    ids = pad_sequence([torch.tensor(text) for text in texts], batch_first=True).to(device)
    return ids, torch.arange(ids.shape[1], device=device) < lengths[:, None]
