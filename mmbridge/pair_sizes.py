"""How much there is of each pass over a batch's pairs of media and texts: what is executed, and what is needed.

Symbols: V views, U of them that pairs show, S pairs of this process, A of all that train together, M queries, l tokens
of a text, T of the longest. Where there is no pair, one of nothing, of two tokens, stands for them. Of pairs of items:
F different firsts, P pairs of this process, B of all.

                    executed                              needed
    views           V                                     U
    text            S·T places, S·T² pairs                Σl, Σl²; of the last block the first token: S, Σl
    both            3·S·(M + T), 3·S·(M + T)²             3·Σ(M + l), 3·Σ(M + l)²; of the last the queries
    causal          S·T, S·T·(M + T)                      Σ(l − 1), Σ(l − 1)·(M + l/2): nobody reads a text's last token
    similarities    S·A, twice: to texts, to media        U·A, as one is the other turned
    items           P·B, twice: to seconds, to firsts     F·B, as one is the other turned
    negatives       S views again in several processes    none

Which texts are drawn is not known before: as needed they count as the pairs' own do. Where all pairs show one medium
nothing is drawn, and ``both`` is needed once, not three times. Views are needed where what is read shows them: the
second of a pair of items for those alone.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from operator import add

from mmbridge.connectors.branch_tokens import NOTHING
from mmbridge.data.batch import Batch
from mmbridge.data.sample import MediumKind
from mmbridge.objectives.base import Part
from mmbridge.objectives.item_pairs import item_places
from mmbridge.objectives.queried import places
from mmbridge.qformer_products import Places
from mmbridge.ranks import Ranks


@dataclass(frozen=True, slots=True)
class PairSizes:
    """``views`` have keys and values made, ``again`` of them once more; ``read`` of them are read by queries that read
    nothing else; ``shared`` of them and ``rows`` texts go to the shared space, where so many are compared:
    ``to_texts``, ``to_images``, ``to_seconds``, ``to_firsts``. ``text``, ``both`` and ``causal`` are passes,
    ``predicted`` tokens come out of the last. Patches are hidden of ``masked`` media; what nobody reads is left out of
    that if it is not ``whole``."""

    views: int
    again: int
    read: int
    shared: int
    rows: int
    to_texts: int
    to_images: int
    to_seconds: int
    to_firsts: int
    text: Places
    both: Places
    causal: Places
    predicted: int
    masked: int
    whole: bool


@dataclass(frozen=True, slots=True)
class PairedBatch:
    """The pairs of a batch: which medium each shows, of ``views``, how long its text is, and how many ``all`` are; and
    the pairs of ``items``, and how many ``all_items`` are."""

    media: Sequence[int]
    lengths: Sequence[int]
    items: Sequence[tuple[int, int]]
    views: int
    all: int
    all_items: int
    ranks: Ranks

    @classmethod
    def of(
        cls, batch: Batch, connector: str, medium: MediumKind, views: int, ranks: Ranks, *, joint: bool
    ) -> "PairedBatch":
        """``joint``: all processes make one at a time; else, each for itself, it knows its own pairs alone."""
        shown = places(batch, medium)
        texts = batch.texts.get(connector)  # none where the connector has no text branch
        lengths = [len(texts[sample]) for sample, _ in shown] if texts else []
        items = item_places(batch, medium)
        counts = [len(shown), len(items)]
        total, all_items = map(int, ranks.total(counts) if joint else counts)
        return cls([number for _, number in shown], lengths, items, views, total, all_items, ranks)

    def shown(self, reads: Collection[Part]) -> set[int]:
        """The views that whoever reads these parts looks at."""
        alone = "words" in reads or "reconstruction" in reads
        return self._shared(reads) | (set(self.media) if alone else set())

    def _shared(self, reads: Collection[Part]) -> set[int]:
        """Those that are needed in the shared space."""
        beside_text = "similarities" in reads or "matches" in reads
        items = chain.from_iterable(self.items) if "items" in reads else ()
        return set(self.media if beside_text else ()) | set(items)

    def executed(self, queries: int, longest: int) -> PairSizes:
        """``longest``: tokens to which texts are padded that come from other processes."""
        rows, several = max(1, len(self.media)), self.ranks.count > 1
        length = max(self.lengths, default=len(NOTHING))
        mixed = max(length, longest) if several else length
        views, compared = self.views if self.media else 1, len(self.media) * self.all
        return PairSizes(
            views=views,
            again=several * rows,
            read=views,
            shared=views,
            rows=rows,
            to_texts=compared,
            to_images=compared,
            to_seconds=len(self.items) * self.all_items,
            to_firsts=len(self.items) * self.all_items,
            text=Places(text=rows * length, pairs=rows * length**2),
            both=Places(3 * rows * queries, 3 * rows * mixed, 3 * rows * (queries + mixed) ** 2),
            causal=Places(text=rows * length, pairs=rows * length * (queries + length)),
            predicted=sum(length - 1 for length in self.lengths),
            masked=len(set(self.media)) or 1,
            whole=True,
        )

    def needed(
        self, queries: int, reads: Collection[Part], views: int | None = None, *, told: bool = False
    ) -> PairSizes:
        """``views``: how many are read for others than the pairs, theirs among them; ``told``: beside instructions."""
        shown, total = len(set(self.media)), sum(self.lengths)
        drawn = 3 if shown > 1 or self.all > len(self.media) else 1
        nowhere = Places(last=Places())
        return PairSizes(
            views=len(self.shown(reads)) if views is None else views,
            again=0,
            read=len(self.shown(reads)) if told or views is None else views,
            shared=len(self._shared(reads)),
            rows=len(self.media),
            to_texts=shown * self.all,
            to_images=0,
            to_seconds=len({first for first, _ in self.items}) * self.all_items,
            to_firsts=0,
            text=reduce(add, (_first(length) for length in self.lengths), nowhere),
            both=reduce(add, (_beside(queries, length) for length in self.lengths for _ in range(drawn)), nowhere),
            causal=Places(
                text=total - len(self.lengths),
                pairs=sum((length - 1) * (2 * queries + length) // 2 for length in self.lengths),
            ),
            predicted=total - len(self.lengths),
            masked=shown,
            whole=False,
        )


def _first(length: int) -> Places:
    """A text whose first token is read."""
    return Places(text=length, pairs=length**2, last=Places(text=1, pairs=length))


def _beside(queries: int, length: int) -> Places:
    """Queries that are read, beside a text that is not."""
    seen = queries + length
    return Places(queries, length, seen**2, last=Places(queries=queries, pairs=queries * seen))
