"""What connectors have made of the media of a batch, put where the placeholders of its samples stand.

Symbols: B media of a batch, M_i perceptual tokens of medium i, D_llm the width of the LLM's input embeddings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmbridge.data.sample import MediumKind
from mmbridge.llm.prompt import Prompt


@dataclass(frozen=True, slots=True)
class Perceived:
    """``tokens``: per sample, per placeholder in order, perceptual tokens (M_i, D_llm); those of a look that several
    samples share are one tensor.

    ``resting``: (0, D_llm) of each connector that had nothing to read; its weights have a gradient of zeros.
    """

    tokens: list[list[Tensor]]
    resting: list[Tensor]

    def means(self, samples: Sequence[int]) -> Tensor:
        """(S, D_llm) in float32: of the first medium of each of these samples, the mean of its tokens."""
        found = [self.tokens[sample][0].float().mean(0) for sample in samples]
        return torch.stack(found) if found else self.resting[0].float()

    def first(self, samples: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The tokens of the first medium of each of S ≥ 1 samples, zeros behind them: (S, M, D_llm) in float32; and
        (S, M), true where they are real."""
        found = [self.tokens[sample][0].float() for sample in samples]
        rows = pad_sequence(found, batch_first=True)
        lengths = torch.tensor([len(each) for each in found], device=rows.device)
        return rows, torch.arange(rows.shape[1], device=rows.device) < lengths[:, None]

    def every(self) -> Tensor:
        """(N, D_llm) in float32: the tokens of all looks, each look once."""
        found = {id(each): each for row in self.tokens for each in row}
        return torch.cat([each.float() for each in found.values() or self.resting])

    def nothing(self) -> Tensor:
        """Zero, a scalar in float32 that resting connectors have a gradient of zeros from."""
        return sum((each.float().sum() for each in self.resting), start=torch.zeros(()))


def placed(
    prompts: Sequence[Prompt], numbers: Sequence[Sequence[int]], known: Mapping[MediumKind, Sequence[Any]]
) -> list[list[Any]]:
    """What is known of the media of each kind, or of the looks at them, put where each sample's placeholders stand.

    Args:
        numbers: for each prompt, of its placeholders: ``Batch.media``, or ``Batch.looked``.
    """
    return [
        [known[each.medium][number] for each, number in zip(prompt.placeholders, row, strict=True)]
        for prompt, row in zip(prompts, numbers, strict=True)
    ]


def unpadded(values: Tensor, mask: Tensor) -> list[Tensor]:
    """(B, M, D_llm) and its mask to one (M_i, D_llm) a medium."""
    if bool(mask.all()):
        return list(values.unbind())
    return [rows[real] for rows, real in zip(values, mask, strict=True)]


def joined(tokens: Sequence[Tensor]) -> Tensor:
    """What several connectors made of a medium, one behind the other."""
    return tokens[0] if len(tokens) == 1 else torch.cat([*tokens])
