"""The floating-point operations of holding media against what is said of them, as closed formulas.

Symbols: S samples that show a medium, A of all processes, l tokens of a text behind its opening of o, T of the longest,
K words of the LLM, D their width. A multiply-add is two FLOPs.

                    needed                                        executed
    said            ``mmbridge.llm.flops``, texts of o + l        S rows of o + T
    assignment      2·K·D for each medium and text that is        the same; where several processes assign theirs
                    held against the words, and again for         together 2·2·A·K·D more, as each does for all
                    the gradient of a medium

Not counted: scaling the assignment. A fixed number of iterations has no products of matrices; to a tolerance each
multiplies a plan by vectors, and how many that takes is not known before.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

from mmbridge.data.batch import Batch
from mmbridge.llm.flops import LanguageModelFlops
from mmbridge.llm.text_states import opening
from mmbridge.objectives.base import Part
from mmbridge.ranks import Ranks

if TYPE_CHECKING:
    from mmbridge.llm.model import LanguageModel


class SaidFlops:
    """Of the ``parts`` that the objectives of a stage read."""

    def __init__(self, llm: "LanguageModel", flops: LanguageModelFlops, parts: Collection[Part], ranks: Ranks) -> None:
        self._llm, self._parts, self._ranks = flops, parts, ranks
        self._opening, self._table = len(opening(llm)) if "said" in parts else 0, llm.vocabulary * llm.width
        self._shared = ranks.count > 1 and "shared assignment" in parts
        self._assigned = bool({"assignment", "shared assignment"} & {*parts})

    def needed(self, batch: Batch, learns: bool) -> int:
        """``learns``: whether perceptual tokens have a gradient."""
        lengths, total = _lengths(batch), 0
        if "said" in self._parts:
            total += self._llm.heard([self._opening + each for each in lengths], sum(lengths))
        if self._assigned:
            total += 2 * len(lengths) * self._table * (2 + learns)
        return total

    def executed(self, batch: Batch, learns: bool) -> int:
        lengths, total = _lengths(batch), 0
        if "said" in self._parts:
            total += self._llm.heard_padded(len(lengths) or 1, self._opening + max(lengths, default=0) or 1)
        if self._assigned:
            total += 2 * len(lengths) * self._table * (2 + learns)
        if self._shared:
            total += 2 * 2 * int(self._ranks.total([len(lengths)])[0]) * self._table
        return total


def _lengths(batch: Batch) -> list[int]:
    return [sum(prompt.supervised) for prompt, media in zip(batch.prompts, batch.media, strict=True) if media]
