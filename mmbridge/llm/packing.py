"""Packing: the samples of a batch one behind the other in a single row, without padding, each reading only itself.

Symbols: T positions of the row, S supervised tokens, M_i perceptual tokens of medium i, D_llm the width of the LLM's
input embeddings.

Sequences are kept apart by their attention, and positions count from each sample's own beginning, so losses and
gradients are those of the padded batch. Samples that begin alike share what they begin with (``mmbridge.llm.tree``).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mmbridge.context import ForwardContext, Span
from mmbridge.llm.attention import KEYWORD, KeysValues, Recorder, take_over
from mmbridge.llm.flops import windows
from mmbridge.llm.reading import Reading
from mmbridge.llm.splice import Embed, embedded, placed
from mmbridge.llm.tree import Places, Tree, trees
from mmbridge.matrices import matrices

if TYPE_CHECKING:
    from mmbridge.llm.model import LanguageModel

CALL = {"cpu": 1.4e7, "other": 1.5e10}
"""What a call of attention costs beside what it computes, as multiply-adds of a layer's matrices. Measured on a CPU; on
an accelerator estimated from the time that starting its kernels takes."""

LEAST = 8
"""A constant beginning of fewer tokens is not worth keeping."""


class Packing:
    """How a language model reads batches in training.

    ``constant`` are the token ids that conversations of its prompter begin with, kept as keys and values while nothing
    in the model trains; ``possible`` says whether the model takes packed rows at all.

    Args:
        llm: settled: what is frozen in it stays so.
    """

    def __init__(self, llm: "LanguageModel") -> None:
        self._llm = llm
        self.constant: tuple[int, ...] = ()
        self._kept: KeysValues = []
        layer = sum(matrix.size for matrix in matrices(llm.layers)) / len(llm.layers)
        self._call = CALL["cpu" if llm.model.device.type == "cpu" else "other"] / layer
        self._window = min(windows(llm.model.config.get_text_config(decoder=True), len(llm.layers)))
        self.possible = take_over(llm.model) and self._agrees()
        opening = llm.prompter.opening
        if self.possible and len(opening) >= LEAST and not any(each.requires_grad for each in llm.parameters()):
            self.constant, self._kept = opening, self._recorded(opening)

    def trees(self, readings: Sequence[Reading]) -> list[Tree]:
        """The trees of a batch; none if it is to be padded, a row a sample."""
        found = trees(readings, self.constant)
        deepest = max((int(tree.depths()[-1]) for tree in found), default=0)
        return found if self.possible and deepest < self._window and pays(found, readings, self._call) else []

    def keys_values(self, device: torch.device) -> KeysValues:
        """Those of the constant beginning, moved once to where the model has come to be."""
        if self._kept and self._kept[0][0].device != device:
            self._kept = [(keys.to(device), values.to(device)) for keys, values in self._kept]
        return self._kept

    @torch.no_grad()
    def _recorded(self, ids: Sequence[int]) -> KeysValues:
        recorder = Recorder()
        self._llm.model(inputs_embeds=self._embeds(ids), use_cache=False, **{KEYWORD: recorder})
        return recorder.found

    @torch.no_grad()
    def _agrees(self) -> bool:
        """Whether the model computes for two samples in one row what it computes for each alone.

        It may not if it does not heed positions or pass our keyword on; that is tried, not looked up in a list.
        """
        llm, samples = self._llm, (range(1, 5), range(5, 11))
        readings = [Reading("", np.array(ids), np.ones(len(ids), np.bool_), ()) for ids in samples]
        together = llm(pack(llm.embed, readings, trees(readings), [[], []], pad_id=llm.pad_id)).logits
        alone = [llm.model(inputs_embeds=self._embeds(ids), use_cache=False).logits[0, :-1] for ids in samples]
        return bool((together - torch.cat(alone)).norm() < 0.05 * together.norm())

    def _embeds(self, ids: Sequence[int]) -> Tensor:
        return self._llm.embed(torch.tensor([[*ids]]))


def pays(found: Sequence[Tree], readings: Sequence[Reading], call: float) -> bool:
    """Whether one row of these trees takes less work than a row a sample, padded to the longest.

    Args:
        call: what a call of attention costs, in positions.
    """
    calls = sum(1 + any(tree.own) for tree in found)
    packed = sum(tree.length for tree in found) + call * calls
    return 0 < packed < len(readings) * max(len(reading.codes) for reading in readings)


def pack(
    embed: Embed,
    readings: Sequence[Reading],
    found: Sequence[Tree],
    tokens: Sequence[Sequence[Tensor]],
    *,
    pad_id: int,
    resting: Sequence[Tensor] = (),
) -> ForwardContext:
    """One row of all the trees of a batch.

    Args:
        embed: token ids (1, T) to embeddings (1, T, D_llm); every other tensor goes to their device.
        readings: of all samples.
        found: their trees.
        tokens: per sample, per placeholder in order, perceptual tokens (M_i, D_llm).
        pad_id: the token id written at perceptual positions; it must have an embedding.
        resting: (0, D_llm) of connectors without media in this batch; nothing is put in, but they get a gradient.
    """
    begins = np.cumsum([0, *(tree.length for tree in found)])
    codes, supervised = np.empty(begins[-1], np.int64), np.zeros(begins[-1], np.bool_)
    put, left = list[Tensor](), [*resting]
    spans: dict[int, tuple[Span, ...]] = {}
    predicting, targets = dict[int, Places](), dict[int, Places]()
    for tree, begin in zip(found, begins, strict=False):
        first = tree.constant  # the first position of a sample that this row has and no earlier sample has put there
        for number in tree.members:
            reading, places = readings[number], begin + tree.places(number)
            new = slice(first, len(places))
            codes[places[new]], supervised[places[new]] = reading.codes[new], reading.supervised[new]
            spans[number] = tuple(
                Span(span.medium, int(places[span.start]), int(places[span.stop - 1]) + 1)
                for span in reading.spans
                if span.start < span.stop <= len(places)
            )
            for span, values in zip(reading.spans, tokens[number], strict=True):
                if span.stop > len(places):
                    left.append(values[:0])
                elif span.start >= first:
                    put.append(values)
            predicting[number], targets[number] = places[reading.predicting], reading.codes[reading.predicting + 1]
            first = tree.constant + tree.shared
    numbers = range(len(readings))
    nothing = np.empty(0, np.int64)
    ids, embeds = embedded(embed, codes[None], [*put, *left], pad_id)
    return ForwardContext(
        embeds=embeds,
        mask=torch.ones_like(ids, dtype=torch.bool),
        positions=placed(np.concatenate([tree.depths() for tree in found])[None], embeds),
        ids=ids,
        perceptual=placed(codes[None] < 0, embeds),
        supervised=placed(supervised[None], embeds),
        predicting=np.concatenate([predicting.get(number, nothing) for number in numbers]),
        targets=placed(np.concatenate([targets.get(number, nothing) for number in numbers]), embeds),
        spans=tuple(spans.get(number, ()) for number in numbers),
        samples=tuple(reading.sample for reading in readings),
        trees=tuple(found),
    )
