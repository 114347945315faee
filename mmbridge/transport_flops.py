"""The floating-point operations of transport between perceptual tokens and words, as closed formulas.

Symbols: S samples that show a medium, of m perceptual tokens, about which l words are said; M and T the most of both; N
tokens of all looks and U different words of all processes; D the LLM's width. A multiply-add is two FLOPs. Forward:

                       needed                                  executed
    transport          2·D·Σ m·l                               2·D·S·M·T
      with contrast    twice that, if there are other media    twice that, T being that of all processes
    paired divergence  2·D·Σ (m·l + m² + l²)                   2·D·S·(M·T + M² + T²)
    divergence         2·D·(N·U + N² + U²), in the first       the same, in each process
                       process that shows a medium

The backward pass takes as much again but for l², T² and U², as words have no gradient; for m², M² and N² it executes it
twice, from either side, though one is the other turned. Which texts are drawn for contrast is not known before: as
needed they count as the samples' own do.

Not counted: finding plans. IPOT and a fixed number of iterations have no products of matrices; to a tolerance each
iteration multiplies a plan by vectors, and how many that takes is not known before.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mmbridge.data.batch import Batch
from mmbridge.objectives.base import Part
from mmbridge.objectives.run import spoken
from mmbridge.ranks import Ranks

if TYPE_CHECKING:
    from mmbridge.bridge import Bridge


class TransportFlops:
    """Of the ``parts`` that the objectives of a stage read. Where they are joint, all processes call its methods."""

    def __init__(self, bridge: "Bridge", parts: Collection[Part], ranks: Ranks) -> None:
        self._bridge, self._parts, self._ranks = bridge, parts, ranks

    def needed(self, batch: Batch, learns: bool) -> int:
        """``learns``: whether perceptual tokens have a gradient."""
        held, total = _Held.of(self._bridge, batch), 0
        carried = sum(tokens * words for tokens, words in held.pairs) * (1 + learns)
        if "transport" in self._parts:
            total += carried
        if "contrasted transport" in self._parts:
            elsewhere = self._ranks.total([len(held.pairs)])[0] > len(held.pairs)
            total += carried * (1 + (elsewhere or held.first > 1))
        if "paired divergence" in self._parts:
            alone = sum(tokens**2 * (1 + learns) + words**2 for tokens, words in held.pairs)
            total += carried + alone
        if "divergence" in self._parts:
            tokens, words, first = self._clouds(held)
            total += first * (tokens * (words + tokens) * (1 + learns) + words**2)
        return 2 * self._bridge.llm.width * total

    def executed(self, batch: Batch, learns: bool) -> int:
        held, total = _Held.of(self._bridge, batch), 0
        count, most = len(held.pairs), max((tokens for tokens, _ in held.pairs), default=0)
        longest = max((words for _, words in held.pairs), default=0)
        carried = count * most * longest * (1 + learns)
        if "transport" in self._parts:
            total += carried
        if "contrasted transport" in self._parts:
            of_all = max(int(each) for each in self._ranks.gather(torch.tensor(longest)))
            total += 2 * count * most * of_all * (1 + learns)
        if "paired divergence" in self._parts:
            total += carried + count * (most**2 * (1 + 2 * learns) + longest**2)
        if "divergence" in self._parts:
            tokens, words, _ = self._clouds(held)
            total += tokens * words * (1 + learns) + tokens**2 * (1 + 2 * learns) + words**2
        return 2 * self._bridge.llm.width * total

    def _clouds(self, held: "_Held") -> tuple[int, int, bool]:
        """N, U, and whether no process before this one shows a medium, and this one does."""
        counts = [int(each) for each in self._ranks.gather(torch.tensor(sum(held.looks)))]
        words = torch.unique(torch.cat(self._ranks.rows(torch.tensor(held.said, dtype=torch.long))))
        return sum(counts), len(words), counts[self._ranks.rank] > 0 and not any(counts[: self._ranks.rank])


@dataclass(frozen=True, slots=True)
class _Held:
    """What is held against what in a batch: ``pairs`` of tokens and words, of the samples that show a medium; how many
    media are the ``first`` of one; tokens of all ``looks``; and what is ``said`` of them."""

    pairs: list[tuple[int, int]]
    first: int
    looks: list[int]
    said: list[int]

    @classmethod
    def of(cls, bridge: "Bridge", batch: Batch) -> "_Held":
        known = zip(batch.prompts, batch.media, batch.looked, bridge.perceptual_tokens(batch), strict=True)
        shown = [each for each in known if each[1]]
        pairs = [(tokens[0], sum(prompt.supervised)) for prompt, *_, tokens in shown]
        first = {(prompt.placeholders[0].medium, numbers[0]) for prompt, numbers, *_ in shown}
        looks = {
            (placeholder.medium, number): tokens
            for prompt, _, numbers, of in shown
            for placeholder, number, tokens in zip(prompt.placeholders, numbers, of, strict=True)
        }
        said = [token for prompt, *_ in shown for token in spoken(prompt)]
        return cls(pairs, len(first), [*looks.values()], said)
