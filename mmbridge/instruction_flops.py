"""The floating-point operations of a Q-Former whose queries read instructions beside features, as closed formulas.

Symbols: V views, R views of all looks, M queries, l tokens of a look's instruction, T of the longest. Keys and values
of a view are made once however many looks there are at it; sizes of ``mmbridge.qformer_products``:

                    executed                        needed
    image           V views                         V views
    both            R·(M + T) places, R·(M + T)²    Σ(M + l), Σ(M + l)²; of the last block the queries

Executed and not needed are padding, and, in the last block, places of text, which nobody reads there.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add

from torch import nn

from mmbridge.connector_flops import projected
from mmbridge.connectors.branch_tokens import NOTHING
from mmbridge.connectors.connector import Connector
from mmbridge.connectors.qformer import QFormer
from mmbridge.connectors.tiles import packed_length
from mmbridge.connectors.vocabulary import Vocabulary
from mmbridge.encoders.base import Tiling, views_per_medium
from mmbridge.products import Products, Value, trains
from mmbridge.qformer_products import Kept, Places, QFormerProducts

Told = Sequence[tuple[int, int]]
"""Looks: the number of the medium, and how many tokens its instruction has."""

RESTING: tuple[Sequence[Tiling | None], Told] = ([None], [(0, len(NOTHING))])
"""What a connector without a medium runs on."""


class InstructionFlops:
    """Of one connector, by how the media of a batch are tiled and what is told of them. What trains is settled by then.

    ``learns`` says whether something trains in or before the perceptual tokens.
    """

    def __init__(self, connector: nn.Module) -> None:
        assert isinstance(connector, Connector)
        assert isinstance(connector.resampler, QFormer)
        self._connector, self._queries = connector, connector.resampler.config.queries
        ends = trains(connector.position, connector.newline, connector.end_token)
        self.learns = ends or self._tokens(Products(), [None], [(0, 1)], _beside).learns

    def executed(self, media: Sequence[Tiling | None], told: Told) -> int:
        longest, products = max(length for _, length in told), Products()
        padded = [(medium, longest) for medium, _ in told]
        end, again = self._tokens(products, media, padded, _whole), 0
        if isinstance(self._connector.projector, Vocabulary) and end.learns:
            again = self._count(media, told) * self._connector.projector.mixed
        return 2 * (products.executed([end]) + again)

    def needed(self, media: Sequence[Tiling | None], told: Told) -> int:
        products = Products()
        return 2 * products.needed([self._tokens(products, media, told, _beside)])

    def after(self, image: Kept, views: int, told: Told, passes: QFormerProducts, products: Products) -> Value:
        """Perceptual tokens as they are needed, of untiled media whose keys and values ``passes`` have made."""
        states = passes.read(self._places([None] * views, told, _beside), image).states
        return projected(self._connector, len(told) * self._queries, states, products)

    def _tokens(
        self, products: Products, media: Sequence[Tiling | None], told: Told, places: Callable[[int, int], Places]
    ) -> Value:
        assert isinstance(self._connector.resampler, QFormer)
        passes = QFormerProducts(self._connector.resampler, self._connector.sources[0].tokens, products)
        image = passes.image(sum(views_per_medium(media)))
        states = passes.read(self._places(media, told, places), image).states
        return projected(self._connector, self._count(media, told), states, products)

    def _places(self, media: Sequence[Tiling | None], told: Told, places: Callable[[int, int], Places]) -> Places:
        views = views_per_medium(media)
        rows = (places(self._queries, length) for medium, length in told for _ in range(views[medium]))
        return reduce(add, rows)

    def _count(self, media: Sequence[Tiling | None], told: Told) -> int:
        """How many tokens are projected that are not padding of tiles."""
        facts, tilings = self._connector.facts, [media[medium] for medium, _ in told]
        return sum(facts.tokens if each is None else packed_length(facts.grid, each, newline=False) for each in tilings)


def _whole(queries: int, length: int) -> Places:
    return Places(queries, length, (queries + length) ** 2)


def _beside(queries: int, length: int) -> Places:
    """Queries that are read, beside a text that is not."""
    seen = queries + length
    return Places(queries, length, seen**2, last=Places(queries=queries, pairs=queries * seen))
