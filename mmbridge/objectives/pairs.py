"""The image–text pairs of a batch, and what a Q-Former with a text branch makes of them: each pass is made once.

Symbols: S pairs of this process, A of all that train together, V views, L text tokens, M queries, W width of the
Q-Former, C width of the shared space. A medium that several samples show has one view, read once.
"""

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmbridge.connectors.branch_tokens import padded
from mmbridge.connectors.connector import Connector
from mmbridge.connectors.keys_values import KeysValues
from mmbridge.connectors.qformer import QFormer, QFormerOutput
from mmbridge.connectors.text_heads import TextHeads, similarities
from mmbridge.data.batch import Batch
from mmbridge.data.sample import MediumKind
from mmbridge.encoders.base import Features
from mmbridge.errors import RecipeError
from mmbridge.joint import joint
from mmbridge.ranks import Ranks

if TYPE_CHECKING:
    from mmbridge.objectives.run import BatchRun


class Pairs:
    """Of the samples that show a medium of the connector's: the first medium of each, and its text.

    A batch without any stands for one pair of nothing, which is not ``real``: the modules must run in every process.
    ``medium`` (S,) says which view each pair shows, ``count`` how many pairs are real; ``ids`` (S, L), ``mask`` and
    ``lengths`` (S,) are their texts, of ``longest`` tokens at most.
    """

    def __init__(self, run: "BatchRun", name: str) -> None:
        self._run, self._name = run, name
        connector = run.bridge.connectors[name]
        assert isinstance(connector, Connector)
        assert isinstance(connector.resampler, QFormer)
        self._connector, self.resampler = connector, connector.resampler
        kind = run.bridge.recipe.connectors[name].medium
        shown = places(run.batch, kind)
        self.count, self.real = len(shown), len(shown) > 0
        texts = [run.batch.texts[name][sample] for sample, _ in shown] or [(0, 0)]
        text = self.resampler.config.text
        assert text is not None
        self.longest = text.length
        device = run.bridge.device
        self.medium = torch.tensor([medium for _, medium in shown] or [0], device=device)
        self.ids, self.mask = padded(texts, device)
        self.lengths = self.mask.sum(dim=1)

    @property
    def heads(self) -> TextHeads:
        heads = self.resampler.heads
        assert heads is not None
        return heads

    @cached_property
    def features(self) -> Features:
        """Of the V views.

        Raises:
            RecipeError: media are cut into several views.
        """
        bridge = self._run.bridge
        if self.real:
            names = bridge.recipe.connectors[self._name].encoders
            (found,) = self._connector.handed([self._run.features[each] for each in names])
            if any(tiling is not None for tiling in found.tilings):
                problem = "expected one view a medium beside a text, found tiles"
                raise RecipeError(f"connectors.{self._name}.encoders", problem, "set aspect to something else")
            return found
        (nothing,) = self._connector.handed(bridge.blanks(self._name))
        return nothing

    @cached_property
    def image(self) -> KeysValues:
        """Keys and values of the V views, for all passes."""
        return self.resampler.image(self.features.values, self.features.mask)

    @cached_property
    def queries(self) -> QFormerOutput:
        """What the queries find in the V views."""
        return self.resampler.read("queries", self.image)

    @cached_property
    def images(self) -> Tensor:
        """(S, M, C), each pair's medium in the shared space."""
        assert self.queries.queries is not None
        return self.heads.images(self.queries.queries)[self.medium][: self.count]

    @cached_property
    def texts(self) -> Tensor:
        """(S, C), each pair's text in the shared space."""
        return self.resampler.told(self.ids, self.mask)[: self.count]

    @cached_property
    def _joint(self) -> tuple[Tensor, Tensor]:
        """(A, M, C) and (A, C): media and texts of all processes' pairs, by rank."""
        both = joint(torch.cat([self.images.flatten(1), self.texts], dim=1), self._run.ranks)
        width = both.shape[1] - self.texts.shape[1]
        images, texts = both[:, :width], both[:, width:]
        return images.reshape(-1, *self.images.shape[1:]), texts

    @cached_property
    def to_texts(self) -> Tensor:
        """(S, A): how near each medium is to the texts of all pairs; its nearest query counts."""
        return similarities(self.images, self._joint[1])

    @cached_property
    def to_images(self) -> Tensor:
        """(S, A): how near each text is to the media of all pairs."""
        return similarities(self._joint[0], self.texts).T

    @cached_property
    def matching(self) -> Tensor:
        """(S, A), true where a pair is about the same medium."""
        return matching(self.medium[: self.count], self._run.ranks)


def matching(media: Tensor, ranks: Ranks) -> Tensor:
    """Which medium of its process each of S samples shows to (S, A), true where it is the same one."""
    own = torch.stack([torch.full_like(media, ranks.rank), media], dim=1)
    return (own[:, None] == torch.cat(ranks.rows(own))[None]).all(dim=2)


def places(batch: Batch, kind: MediumKind) -> list[tuple[int, int]]:
    """The samples that show a medium of this kind, and the number of the first that each shows."""
    found = []
    for sample, (prompt, numbers) in enumerate(zip(batch.prompts, batch.media, strict=True)):
        mine = [
            number
            for placeholder, number in zip(prompt.placeholders, numbers, strict=True)
            if placeholder.medium == kind
        ]
        if mine:
            found.append((sample, mine[0]))
    return found
