"""BLIP-2's three losses, slowly: one pair, one query and one word at a time, over transformers' Q-Former.

Nothing of ours is imported here.

Symbols: M queries, N tokens of a view, D their width, W width of the Q-Former, C of the shared space, K words.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

SMOOTHING = 0.1


@dataclass
class Blip2Losses:
    """``model`` is a ``Blip2ForImageTextRetrieval``; ``heads`` are what it has not: ``temperature``, ``bias`` …

    Views (N, D) and texts are those of the pairs; ``media`` says which pairs show the same.
    """

    model: Any
    heads: dict[str, Tensor]
    views: Sequence[Tensor]
    texts: Sequence[Sequence[int]]
    media: Sequence[int]
    queries: int = field(init=False)

    def __post_init__(self) -> None:
        self.queries = self.model.query_tokens.shape[1]

    def shown(self, pair: int) -> Tensor:
        """(M, C)."""
        states = self.model.qformer(
            query_embeds=self.model.query_tokens, encoder_hidden_states=self.views[pair][None]
        ).last_hidden_state[0]
        return torch.stack([each / each.norm() for each in self.model.vision_projection(states)])

    def told(self, pair: int) -> Tensor:
        """(C,)."""
        ids = torch.tensor([self.texts[pair]])
        states = self.model.qformer(query_embeds=self.model.embeddings(ids), query_length=0).last_hidden_state
        projected: Tensor = self.model.text_projection(states[0, 0])
        length: Tensor = projected.norm()
        return projected / length

    def itc(self) -> Tensor:
        """The sum over the pairs."""
        shown, told = [self.shown(each) for each in self._all()], [self.told(each) for each in self._all()]
        near = [
            [max(query @ text for query in image) / self.heads["temperature"][0] for text in told] for image in shown
        ]
        total = torch.zeros(())
        for one in self._all():
            right = [other for other in self._all() if self.media[other] == self.media[one]]
            for row in (near[one], [near[other][one] for other in self._all()]):
                total_mass = torch.stack(row).exp().sum()
                for other in self._all():
                    share = SMOOTHING / len(row) + (1 - SMOOTHING) * (other in right) / len(right)
                    total = total - share * (row[other] - total_mass.log()) / 2
        return total

    def judged(self, view: Tensor, text: Sequence[int]) -> Tensor:
        """Logits (2,) of no match and match."""
        ids = torch.tensor([text])
        states = self.model.qformer(
            query_embeds=self.model.embeddings(ids, query_embeds=self.model.query_tokens),
            query_length=self.queries,
            encoder_hidden_states=view[None],
        ).last_hidden_state[0, : self.queries]
        logits: Tensor = self.model.itm_head(states)
        return logits.mean(0)

    def itm(self, media: Sequence[int], texts: Sequence[int]) -> Tensor:
        """The sum over the pairs, and for each over one with another pair's medium and one with another's text."""
        total = torch.zeros(())
        for pair in self._all():
            others = [(pair, pair, 1), (media[pair], pair, 0), (pair, texts[pair], 0)]
            for view, text, label in others:
                assert label or self.media[view] != self.media[text]
                total = total - self.judged(self.views[view], self.texts[text]).log_softmax(0)[label]
        return total

    def itg(self, begin: int) -> Tensor:
        """The sum over all words but the first, in whose place ``begin`` stands."""
        table, total = self.model.embeddings.word_embeddings.weight, torch.zeros(())
        for pair in self._all():
            ids = torch.tensor([[begin, *self.texts[pair][1:]]])
            length = self.queries + ids.shape[1]
            seen = torch.zeros(1, 1, length, length, dtype=torch.bool)
            for asking in range(length):
                for asked in range(length):
                    seen[0, 0, asking, asked] = asked < self.queries or (asking >= self.queries and asked <= asking)
            states = self.model.qformer(
                query_embeds=self.model.embeddings(ids, query_embeds=self.model.query_tokens),
                query_length=self.queries,
                attention_mask=seen,
                encoder_hidden_states=self.views[pair][None],
            ).last_hidden_state[0, self.queries :]
            for place, word in enumerate(self.texts[pair][1:]):
                hidden = functional.linear(states[place], self.heads["transform.weight"], self.heads["transform.bias"])
                hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
                hidden = (hidden - hidden.mean()) / (hidden.var(unbiased=False) + 1e-12).sqrt()
                hidden = hidden * self.heads["norm.weight"] + self.heads["norm.bias"]
                chances = (table @ hidden + self.heads["bias"]).log_softmax(0)
                total = total - (1 - SMOOTHING) * chances[word] - SMOOTHING * chances.mean()
        return total

    def _all(self) -> range:
        return range(len(self.texts))
