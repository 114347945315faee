"""The floating-point operations that a training step of a bridge needs, as closed formulas; nothing runs.

Parts that no objective reads need none: where none reads what the LLM says, neither it nor a projector runs.

A multiply-add is two FLOPs.

    encoder     ``Encoder.flops``, view by view
    connector   ``mmbridge.connector_flops``, medium by medium; ``mmbridge.instruction_flops``, look by look
    pairs       ``mmbridge.pair_flops``, what a Q-Former makes of media and texts for losses of its own
    said        ``mmbridge.said_flops``, what the LLM makes of the texts alone, and both held against its words
    transport   ``mmbridge.transport_flops``, how far tokens are from the words said of media
    LLM         ``mmbridge.llm.flops``, sample by sample, what several begin with alike once

Not counted: norms, activations, and resampling without weights.

What is needed does not depend on how it is computed. What is executed can be more; that has a formula of its own here,
and ``mmbridge.evaluation.flops`` counts it.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mmbridge.connector_flops import ConnectorFlops
from mmbridge.context import Span
from mmbridge.data.batch import Batch
from mmbridge.encoders.base import Tiling, Views
from mmbridge.encoders.vision import VisionEncoder
from mmbridge.instruction_flops import RESTING, InstructionFlops, Told
from mmbridge.llm.flops import LanguageModelFlops, Row, Work
from mmbridge.llm.reading import Reading, read
from mmbridge.llm.tree import Tree, trees
from mmbridge.objectives.weighted import WeightedObjectives
from mmbridge.pair_flops import Masked, PairFlops
from mmbridge.pair_sizes import PairedBatch
from mmbridge.said_flops import SaidFlops
from mmbridge.transport_flops import TransportFlops


class StepFlops:
    """What batches need for a training step, forward and backward, and what is executed for it.

    Reads the parts of a bridge once; what is frozen and what trains must be settled by then. Where objectives are
    joint, all processes call its methods alike.
    """

    def __init__(self, objectives: WeightedObjectives) -> None:
        self._bridge = bridge = objectives.bridge
        self._objectives = objectives
        parts = {each.part for each in objectives.reads if each.connector is None}
        self._answers = "answers" in parts
        self._perceives = self._answers or "perceived" in parts
        self._pairs = dict[str, PairFlops]()
        for name in bridge.recipe.connectors:
            if read := {each.part for each in objectives.reads if each.connector == name}:
                self._pairs[name] = PairFlops(bridge.connectors[name], read, self._masked(name))
        self._llm = LanguageModelFlops(bridge.llm)
        self._said = SaidFlops(bridge.llm, self._llm, parts, objectives.ranks)
        self._transport = TransportFlops(bridge, parts, objectives.ranks)
        self._views = {name: bridge.encoder(name).flops() for name in bridge.prepare}
        configs = bridge.recipe.connectors
        self._connectors = {
            name: InstructionFlops(connector) if configs[name].instructed else ConnectorFlops(connector)
            for name, connector in bridge.connectors.items()
        }
        learning = (config for name, config in configs.items() if self._connectors[name].learns)
        self._learning = {config.medium for config in learning}

    def __call__(self, batch: Batch) -> tuple[int, int]:
        """FLOPs needed, and executed: with all that is computed and that nobody reads, which is padding, pairs that the
        mask forbids, the backward pass of text in front of the first medium, connectors that run on nothing, and what
        ``mmbridge.pair_flops`` lists."""
        if not len(batch):
            return 0, self(self._bridge.nothing())[1] if self._objectives.joint else 0
        paired = self._paired(batch)
        needed = self._needed_encoders(batch, paired) + self._needed_connectors(batch, paired)
        executed = self._executed_encoders(batch, paired) + self._executed_connectors(batch, paired)
        learns = bool(self._learning)
        for each in (self._said, self._transport):
            needed, executed = needed + each.needed(batch, learns), executed + each.executed(batch, learns)
        if not self._answers:
            return needed, executed
        rows, work = self._read(batch)
        flows = any(self._connectors[name].learns for name in self._resting(batch))
        llm = self._llm.executed(rows, work, self._bridge.llm.recompute.blocks, flows=flows)
        return needed + self.llm(batch), executed + llm

    def needed(self, batch: Batch) -> int:
        """FLOPs of all parts together."""
        return self(batch)[0]

    def executed(self, batch: Batch) -> int:
        """The same with what nobody needs."""
        return self(batch)[1]

    def encoders(self, batch: Batch) -> int:
        """FLOPs that are needed of the encoders over the batch's views; media encoded before need none."""
        return self._needed_encoders(batch, self._paired(batch))

    def connectors(self, batch: Batch) -> int:
        """FLOPs that are needed of the connectors, forward and backward."""
        return self._needed_connectors(batch, self._paired(batch))

    def llm(self, batch: Batch) -> int:
        """FLOPs that are needed of the language model, forward and backward."""
        return sum(map(self._llm, self.rows(batch))) if self._answers else 0

    def rows(self, batch: Batch) -> list[Row]:
        """What the LLM reads: samples, those that begin alike as one."""
        return self._rows(self._readings(batch))

    def _paired(self, batch: Batch) -> dict[str, PairedBatch]:
        """The pairs that each connector reads."""
        joint, ranks, found = self._objectives.joint, self._objectives.ranks, dict[str, PairedBatch]()
        for name in self._pairs:
            config = self._bridge.recipe.connectors[name]
            views = len(batch.views[config.encoders[0]])
            found[name] = PairedBatch.of(batch, name, config.medium, views, ranks, joint=joint)
        return found

    def _executed_encoders(self, batch: Batch, paired: Mapping[str, PairedBatch]) -> int:
        """All of them over all views, if anybody reads what one sees."""
        run = self._perceives or any(each.media for each in paired.values())
        return sum(self._seen(batch, name, range(len(batch.views[name]))) for name in self._views) if run else 0

    def _needed_encoders(self, batch: Batch, paired: Mapping[str, PairedBatch]) -> int:
        if self._perceives:
            return self._executed_encoders(batch, paired)
        shown = defaultdict[str, set[int]](set)
        for name, pairs in paired.items():
            for encoder in self._pairs[name].read(self._bridge.recipe.connectors[name].encoders):
                shown[encoder].update(self._pairs[name].shown(pairs))
        return sum(self._seen(batch, name, numbers) for name, numbers in shown.items())

    def _seen(self, batch: Batch, encoder: str, media: Iterable[int]) -> int:
        views = (batch.views[encoder][number] for number in media)
        return self._views[encoder] * sum(len(each.inputs) for each in views if isinstance(each, Views))

    def _executed_connectors(self, batch: Batch, paired: Mapping[str, PairedBatch]) -> int:
        pairs = sum(self._pairs[name].executed(each) for name, each in paired.items())
        if not self._perceives:
            return pairs
        resting = sum(self._of(name, *RESTING, again=True) for name in self._resting(batch))
        return pairs + resting + sum(self._perceived(batch, name, again=True) for name in self._connectors)

    def _needed_connectors(self, batch: Batch, paired: Mapping[str, PairedBatch]) -> int:
        total = 0
        for name in self._connectors:
            if name in paired:
                each = paired[name]
                told = self._told(batch, name) if self._perceives else ()
                total += self._pairs[name].needed(each, each.views if self._perceives else None, told)
            elif self._perceives:
                total += self._perceived(batch, name)
        return total

    def _masked(self, connector: str) -> Masked | None:
        """What a reconstruction through this connector hides patches of."""
        found = self._objectives.reconstructions.get(connector)
        if found is None:
            return None
        encoder = self._bridge.encoders[found.encoder]
        assert isinstance(encoder, VisionEncoder)
        return Masked(encoder, found.decoder, found.visible)

    def _resting(self, batch: Batch) -> list[str]:
        """The connectors whose medium the batch has none of: for the LLM they run on nothing."""
        connectors = self._bridge.recipe.connectors.items()
        return [name for name, config in connectors if not all(batch.views[each] for each in config.encoders)]

    def _perceived(self, batch: Batch, connector: str, *, again: bool = False) -> int:
        """What the LLM reads in place of the media."""
        encoder = self._bridge.recipe.connectors[connector].encoders[0]
        media = [view.tiling for view in batch.views[encoder]]
        return self._of(connector, media, self._told(batch, connector), again=again) if media else 0

    def _of(self, connector: str, media: Sequence[Tiling | None], told: Told, *, again: bool) -> int:
        flops = self._connectors[connector]
        if isinstance(flops, InstructionFlops):
            return flops.executed(media, told) if again else flops.needed(media, told)
        return sum(flops(tiling, again=again) for tiling in media)

    def _told(self, batch: Batch, connector: str) -> Told:
        """The looks of a connector whose queries read instructions; none for others."""
        config = self._bridge.recipe.connectors[connector]
        if not config.instructed or config.medium not in batch.looks:
            return ()
        looks = batch.looks[config.medium]
        return list(zip(looks.media, map(len, looks.instructions[connector]), strict=True))

    def _read(self, batch: Batch) -> tuple[list[Row], Work]:
        """What the LLM goes through, and how."""
        readings, packing = self._readings(batch), self._bridge.llm.packing
        if packing and (found := packing.trees(readings)):
            rows = self._rows(readings)
            return rows, packed(found, rows)
        alone = [Tree((number,), 0, each.length, (0,)) for number, each in enumerate(readings)]
        return [self._row(tree, readings) for tree in alone], padded(readings)

    def _rows(self, readings: Sequence[Reading]) -> list[Row]:
        packing = self._bridge.llm.packing
        return [self._row(tree, readings) for tree in trees(readings, packing.constant if packing else ())]

    def _readings(self, batch: Batch) -> list[Reading]:
        known = zip(batch.prompts, self._bridge.perceptual_tokens(batch), batch.looked, strict=True)
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
