"""The floating-point operations that a training step of a bridge needs, as closed formulas; nothing runs.

Symbols: V views, n tokens of a view inside its encoder, D the encoder's width, b blocks up to the deepest tap. A
multiply-add is two FLOPs.

    encoder     per view: 2·n·(matrices of b blocks) + 4·b·D·n² for attention + 2·cells·(patch convolution)
    connector   ``mmbridge.connector_flops``, medium by medium
    LLM         ``mmbridge.llm.flops``, sample by sample, what several begin with alike once

Not counted: norms, activations, resampling without weights, and the pooling head behind an encoder's blocks.

What is needed does not depend on how it is computed. What is executed can be more; that has a formula of its own here,
and ``mmbridge.evaluation.flops`` counts it.
"""

import sys
from collections.abc import Sequence
from itertools import chain
from math import prod

import numpy as np
from torch import nn

from mmbridge.bridge import Bridge
from mmbridge.connector_flops import ConnectorFlops
from mmbridge.context import Span
from mmbridge.data.batch import Batch
from mmbridge.data.sample import MediumKind
from mmbridge.encoders.base import Views
from mmbridge.encoders.vision import VisionEncoder
from mmbridge.llm.flops import LanguageModelFlops, Row, Work
from mmbridge.llm.reading import Reading, read
from mmbridge.llm.tree import Tree, trees
from mmbridge.matrices import matrices


class StepFlops:
    """What batches need for a training step, forward and backward, and what is executed for it.

    Reads the parts of a bridge once; what is frozen and what trains must be settled by then.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._llm = LanguageModelFlops(bridge.llm)
        self._views = {name: encoder_flops(bridge.encoders[name]) for name in bridge.prepare}
        self._connectors = {name: ConnectorFlops(connector) for name, connector in bridge.connectors.items()}
        self._learning = set[MediumKind]()
        for name, config in bridge.recipe.connectors.items():
            if any(parameter.requires_grad for parameter in bridge.connectors[name].parameters()):
                self._learning.add(config.medium)

    def __call__(self, batch: Batch) -> tuple[int, int]:
        """FLOPs needed, and executed: with all that is computed and that nobody reads, which is padding, pairs that the
        mask forbids, and the backward pass of text in front of the first medium."""
        readings, packing = self._readings(batch), self._bridge.llm.packing
        needed = executed = self._rows(readings)
        if packing and (found := packing.trees(readings)):
            work = packed(found, executed)
        else:
            alone = [Tree((number,), 0, each.length, (0,)) for number, each in enumerate(readings)]
            executed, work = [self._row(tree, readings) for tree in alone], padded(readings)
        llm = self._llm.executed(executed, work, self._bridge.llm.recompute.blocks)
        media = self.encoders(batch) + self.connectors(batch)
        return media + sum(map(self._llm, needed)), media + llm

    def needed(self, batch: Batch) -> int:
        """FLOPs of all parts together."""
        return self(batch)[0]

    def executed(self, batch: Batch) -> int:
        """The same with what nobody needs."""
        return self(batch)[1]

    def encoders(self, batch: Batch) -> int:
        """FLOPs of the encoders over the batch's views; media encoded before need none."""
        live = {name: [one for one in batch.views[name] if isinstance(one, Views)] for name in self._views}
        return sum(each * sum(len(one.inputs) for one in live[name]) for name, each in self._views.items())

    def connectors(self, batch: Batch) -> int:
        """FLOPs of the connectors, forward and backward."""
        total = 0
        for name, config in self._bridge.recipe.connectors.items():
            total += sum(self._connectors[name](view.tiling) for view in batch.views[config.encoders[0]])
        return total

    def llm(self, batch: Batch) -> int:
        """FLOPs of the language model, forward and backward."""
        return sum(map(self._llm, self.rows(batch)))

    def rows(self, batch: Batch) -> list[Row]:
        """What the LLM reads: samples, those that begin alike as one."""
        return self._rows(self._readings(batch))

    def _rows(self, readings: Sequence[Reading]) -> list[Row]:
        packing = self._bridge.llm.packing
        return [self._row(tree, readings) for tree in trees(readings, packing.constant if packing else ())]

    def _readings(self, batch: Batch) -> list[Reading]:
        known = zip(batch.prompts, self._bridge.perceptual_tokens(batch), batch.media, strict=True)
        return [read(prompt, lengths, numbers, sys.maxsize) for prompt, lengths, numbers in known]

    def _row(self, tree: Tree, readings: Sequence[Reading]) -> Row:
        reads, learns, predicting = tree.depths() + 1, np.zeros(tree.length, np.int64), []
        for number in tree.members:
            reading, places = readings[number], tree.places(number)
            first = min((each.start for each in reading.spans if self._learns(each)), default=len(reading.codes))
            depths = np.arange(len(places))
            learns[places[tree.constant :]] = (depths + 1 - first).clip(min=0)[tree.constant :]
            predicting.append(places[reading.predicting])
        return Row(reads, learns, np.unique(np.concatenate(predicting)))

    def _learns(self, span: Span) -> bool:
        return span.medium in self._learning and span.stop > span.start


def packed(found: Sequence[Tree], rows: Sequence[Row]) -> Work:
    """Trees in one row: two calls of attention for each, and in the last layer one."""
    pairs, last = 0, 0
    for tree, row in zip(found, rows, strict=True):
        keys = tree.constant + tree.length
        pairs += tree.shared * (tree.constant + tree.shared) + sum(tree.own) * keys
        last += len(row.predicting) * keys
    return Work(sum(tree.length for tree in found), pairs, last)


def padded(readings: Sequence[Reading]) -> Work:
    """A row a sample, all as long as the longest."""
    width = max((len(reading.codes) for reading in readings), default=0)
    return Work(width * len(readings), width**2 * len(readings), width**2 * len(readings))


def encoder_flops(encoder: nn.Module) -> int:
    """FLOPs of one view on its way to the deepest tap."""
    assert isinstance(encoder, VisionEncoder)
    tokens, used = encoder.sequence, encoder.blocks[: max(encoder.taps)]
    sizes = sum(matrix.size for matrix in chain.from_iterable(map(matrices, used)))
    patch = next(each for each in encoder.model.modules() if isinstance(each, nn.Conv2d))
    pixels = patch.in_channels // patch.groups * prod(patch.kernel_size)
    attention = 2 * len(used) * patch.out_channels * tokens**2
    return 2 * (tokens * sizes + attention + encoder.cells * pixels * patch.out_channels)
