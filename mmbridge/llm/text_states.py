"""What a language model makes of texts that stand alone: its last hidden states, as its output head reads them.

Symbols: S texts, L tokens of the longest, D width of what the head reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmbridge.llm.model import LanguageModel
from mmbridge.llm.sites import tapped


@dataclass(frozen=True, slots=True)
class TextStates:
    """``values`` (S, L, D) in the model's dtype and ``mask`` (S, L), true at tokens of the texts."""

    values: Tensor
    mask: Tensor

    def means(self) -> Tensor:
        """(S, D) in float32, the mean over each text's tokens; zero for a text without any."""
        kept = self.values.float().where(self.mask[..., None], 0)
        return kept.sum(1) / self.mask.sum(1, keepdim=True).clamp(min=1)


def opening(llm: LanguageModel) -> tuple[int, ...]:
    """The token that the tokenizer puts in front of every text, if it does."""
    bos = llm.tokenizer.bos_token_id
    return (bos,) if bos is not None and llm.tokenizer("")["input_ids"][:1] == [bos] else ()


@torch.no_grad()
def text_states(llm: LanguageModel, texts: Sequence[Sequence[int]]) -> TextStates:
    """One forward pass over S ≥ 1 texts of token ids, each behind the tokenizer's opening, which is read and not told.

    Without gradients, be there LoRA or not. The head itself does not run.
    """
    first = opening(llm)
    rows = [torch.tensor((*first, *text) or (llm.pad_id,)) for text in texts]
    ids = pad_sequence(rows, batch_first=True, padding_value=llm.pad_id)  # causal: what stands behind reaches nothing
    found = list[Tensor]()
    with tapped(llm, ["final"], lambda _, states: found.append(states)):
        llm.model(inputs_embeds=llm.embed(ids), use_cache=False)
    values = found[0][:, len(first) :]
    lengths = torch.tensor([len(text) for text in texts], device=values.device)
    return TextStates(values, torch.arange(values.shape[1], device=values.device) < lengths[:, None])
