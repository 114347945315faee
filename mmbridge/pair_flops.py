"""The floating-point operations of contrasts, matching, grounded generation and reconstruction, as closed formulas.

Symbols: V views, S pairs of media and texts, A of all processes, P predicted tokens, M queries, W width of the
Q-Former, C width of the shared space, K words. A multiply-add is two FLOPs. Forward:

    passes          ``mmbridge.qformer_products``, of the sizes in ``mmbridge.pair_sizes``:
                    image and queries over V views, text over S texts, both over 3·S rows, causal over S texts
    contrast        2·(V·M·W·C + S·W·C) for the shared space, 2·M·C for each medium and text that are compared
    items           2·V·M·W·C for the shared space, 2·M²·C for each two items that are compared
    matching        2·3·S·M·2·W
    generation      2·P·(W² + W·K)
    reconstruction  ``Encoder.flops`` and ``mmbridge.xformer_products``, of the patches that are seen

The backward pass takes as much for every operand that has to have a gradient. Each pass is made once, if any loss reads
it. Matching draws its negatives by similarities that get no gradient of it. Executed and not needed are:

- padding of texts, pairs that the causal mask forbids, a text's last token where the next is predicted;
- in the last block, places whose output nobody reads: a text's tokens but its first, text beside queries; and all but
  keys and values of the queries where generation alone reads them;
- hidden patches, where they are embedded; in the decoder's last block and behind, what is made of visible ones;
- views that nobody reads; similarities' second product; views projected again that other processes have projected;
- the connector's own pass where the LLM reads it as well: it is that of ``queries``. Where queries read instructions
  for it, only keys and values of the views are the same (``mmbridge.instruction_flops``).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from mmbridge.connector_flops import projected
from mmbridge.connectors.connector import Connector
from mmbridge.connectors.text_heads import TextHeads
from mmbridge.connectors.xformer import XFormer, qformer_in
from mmbridge.encoders.masked import MaskedDecoder
from mmbridge.encoders.vision import VisionEncoder
from mmbridge.instruction_flops import InstructionFlops, Told
from mmbridge.objectives.base import Part
from mmbridge.pair_sizes import PairedBatch, PairSizes
from mmbridge.products import Products, Value, joined, trains
from mmbridge.qformer_products import Kept, Passed, Places, QFormerProducts
from mmbridge.xformer_products import DualProducts, decoded


@dataclass(frozen=True, slots=True)
class Masked:
    """A masked autoencoder: both its halves, and how many patches are visible."""

    encoder: VisionEncoder
    decoder: MaskedDecoder
    visible: int


class PairFlops:
    """Of what the objectives of a stage read of one connector's pairs."""

    def __init__(self, connector: nn.Module, reads: Collection[Part], masked: Masked | None = None) -> None:
        assert isinstance(connector, Connector)
        self._connector, self._reads, self._masked = connector, reads, masked
        qformer = qformer_in(connector.resampler)
        assert qformer is not None
        config = qformer.config
        self._queries, self._longest = config.queries, config.text.length if config.text else 0
        self._instructed = InstructionFlops(connector) if connector.instructed else None

    def read(self, encoders: Sequence[str]) -> Sequence[str]:
        """Those of the connector's encoders of which features are read; an X-Former's second where queries go on."""
        goes_on = {"similarities", "matches", "items"} & {*self._reads}
        return encoders if goes_on or not isinstance(self._connector.resampler, XFormer) else encoders[:1]

    def shown(self, batch: PairedBatch) -> set[int]:
        """The views that are needed."""
        return batch.shown(self._reads)

    def executed(self, batch: PairedBatch) -> int:
        made = _PairProducts(self._connector, batch.executed(self._queries, self._longest), self._masked)
        asked, _ = made.read(self._reads)
        return 2 * made.products.executed(asked)

    def needed(self, batch: PairedBatch, views: int | None = None, told: Told = ()) -> int:
        """``views``: those that the LLM reads as well, if it does; they are projected for it. ``told``: the looks at
        them, of a connector whose queries read instructions."""
        sizes = batch.needed(self._queries, self._reads, views, told=bool(told))
        made = _PairProducts(self._connector, sizes, self._masked)
        asked, looked = made.read(self._reads) if self.shown(batch) else ([], [])
        if views and self._instructed is not None:
            asked.append(self._instructed.after(made.image, views, told, made.passes, made.products))
        elif views:
            asked.append(projected(self._connector, views * self._queries, made.states, made.products))
        return 2 * made.products.needed(asked, looked)


class _PairProducts:
    """What ``mmbridge.objectives.queried`` and ``pairs`` make, and objectives of it: each when first asked for."""

    def __init__(self, connector: Connector, sizes: PairSizes, masked: Masked | None) -> None:
        qformer = qformer_in(connector.resampler)
        assert qformer is not None
        self.products, self._sizes, self._qformer, self._masked = Products(), sizes, qformer, masked
        self.passes = QFormerProducts(self._qformer, connector.sources[0].tokens, self.products)
        self._config, self._dual = self._qformer.config, None
        if isinstance(connector.resampler, XFormer):
            self._dual = DualProducts(connector.resampler, connector.sources[1].tokens, self.products)

    def read(self, reads: Collection[Part]) -> tuple[list[Value], list[Value]]:
        """What losses ask for, and what they look at without a gradient."""
        asked, looked = list[Value](), list[Value]()
        if "similarities" in reads:
            asked += self.similarities
        if "matches" in reads:
            asked.append(self.matches)
            looked += self.similarities
        if "words" in reads:
            asked.append(self.words)
        if "reconstruction" in reads:
            asked.append(self.reconstruction)
        if "items" in reads:
            asked += self.items
        return asked, looked

    @cached_property
    def image(self) -> Kept:
        return self.passes.image(self._sizes.views)

    @cached_property
    def queries(self) -> Passed:
        return self.passes.read(Places.alone(self._config.queries, self._sizes.read), self.image)

    @cached_property
    def states(self) -> Value:
        """Of the views' queries as they go on."""
        return self._ended(self._sizes.read, self.queries.states)

    def _ended(self, rows: int, states: Value) -> Value:
        return states if self._dual is None else self._dual.read(rows, states)

    @property
    def _heads(self) -> TextHeads:
        heads = self._qformer.heads
        assert heads is not None
        return heads

    @cached_property
    def shared(self) -> Value:
        places = self._sizes.shared * self._config.queries
        return self.products.linear(self._heads.image, places, self.states)

    @cached_property
    def items(self) -> tuple[Value, Value]:
        each = self._config.queries**2 * self._heads.image.out_features
        sizes, made, own, both = self._sizes, self.products, self.shared, joined(self.shared)
        to_seconds, to_firsts = (made.of(size * each, own, both) for size in (sizes.to_seconds, sizes.to_firsts))
        return to_seconds, to_firsts

    @cached_property
    def similarities(self) -> tuple[Value, Value]:
        sizes, made, heads = self._sizes, self.products, self._heads
        images = self.shared
        texts = made.linear(heads.text, sizes.rows, self.passes.read(sizes.text).states)
        both, each = joined(images, texts), self._config.queries * heads.image.out_features
        return made.of(sizes.to_texts * each, images, both), made.of(sizes.to_images * each, both, texts)

    @cached_property
    def matches(self) -> Value:
        sizes, image = self._sizes, self.image
        if sizes.again:
            others = self.passes.image(sizes.again)
            image = [
                None if own is None or other is None else (joined(own[0], other[0]), joined(own[1], other[1]))
                for own, other in zip(image, others, strict=True)
            ]
        passed = self.passes.read(sizes.both, image).states
        states = self._ended(sizes.both.queries // self._config.queries, passed)
        return self.products.linear(self._heads.match, sizes.both.queries, states)

    @cached_property
    def words(self) -> Value:
        sizes, made, heads, table = self._sizes, self.products, self._heads, self._qformer.embeddings.words
        assert table is not None
        states = self.passes.read(sizes.causal, kept=self.queries.kept).states
        changed = joined(made.linear(heads.transform, sizes.predicted, states), trains=trains(heads.norm))
        size = sizes.predicted * table.num_embeddings * table.embedding_dim
        return joined(made.of(size, changed, Value(trains(table))), trains=trains(heads.bias))

    @cached_property
    def reconstruction(self) -> Value:
        sizes, made, masked = self._sizes, self.products, self._masked
        assert masked is not None
        assert self._dual is not None
        visible, patches = masked.visible, masked.decoder.patches
        encoded = masked.encoder.flops(visible, patches if sizes.whole else visible) // 2
        seen = made.of(sizes.masked * encoded, Value(learns=False), Value(learns=False))
        enriched = joined(seen, self._dual.enriched(sizes.masked, 1 + visible, self.queries.states))
        read = 1 + patches if sizes.whole else patches - visible
        return decoded(masked.decoder, sizes.masked, visible, read, enriched, made)
