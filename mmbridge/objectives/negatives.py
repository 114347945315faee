"""Pairs that do not match, drawn from those of all processes.

Symbols: S pairs of this process, A of all that train together, V views, L text tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from mmbridge.connectors.keys_values import KeysValues
from mmbridge.connectors.xformer import Details
from mmbridge.objectives.pairs import Pairs
from mmbridge.ranks import Ranks

LEAST = 1e-4
"""Added to the probability of every negative, as in BLIP-2's released code."""


def drawn(near: Tensor, matching: Tensor) -> Tensor:
    """For each pair one of the A that is not about its medium, the likelier the nearer: (S,).

    Args:
        near: (S, A), similarities over their temperature.
        matching: (S, A), true where a pair is about the same medium. Where all are, one of them is drawn.
    """
    weights = near.float().softmax(dim=1) + LEAST
    weights = torch.where(matching & ~matching.all(dim=1, keepdim=True), 0, weights)
    return torch.multinomial(weights, 1)[:, 0]


class Negatives:
    """The media and texts of all processes' pairs, by their number among the A; all processes make one of a batch.

    Where this one has no real pair, those of nothing.
    """

    def __init__(self, pairs: Pairs, ranks: Ranks) -> None:
        self._queried, self._alone = pairs.queried, ranks.count == 1
        self._view, self._ids, self._lengths = pairs.queried.medium, pairs.ids, pairs.lengths
        if self._alone:
            return
        queried, missing = pairs.queried, pairs.longest - pairs.ids.shape[1]
        begin, self._seen = 0, list[tuple[Tensor, Tensor]]()
        for features in queried.features:
            values, real = ranks.rows(features.values), ranks.rows(features.mask.to(torch.uint8))
            begin = sum(map(len, values[: ranks.rank]))
            self._seen.append((torch.cat(values), torch.cat(real).bool()))
        view, lengths, ids = queried.medium + begin, pairs.lengths, functional.pad(pairs.ids, (0, max(0, missing)))
        joint = [torch.cat(ranks.rows(each[: queried.count])) for each in (view, lengths, ids)]
        self._view, self._lengths, self._ids = joint if queried.real else (view, lengths, ids)

    def image(self, numbers: Tensor) -> KeysValues:
        """Of the media of these pairs. Those of other processes are projected here, so that gradients stay here."""
        views = self._view[numbers]
        if self._alone:
            return self._queried.image.of(views)
        values, real = self._seen[0]
        return self._queried.qformer.image(values[views], real[views])

    def details(self, numbers: Tensor) -> Details | None:
        """What an X-Former's second encoder sees in the media of these pairs."""
        views, xformer = self._view[numbers], self._queried.xformer
        if self._alone or xformer is None:
            return self._queried.details and self._queried.details.of(views)
        values, real = self._seen[1]
        return xformer.details(values[views], real[views])

    def text(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids (…, L) of the texts of these pairs, and where they are real."""
        ids, lengths = self._ids[numbers], self._lengths[numbers]
        return ids, torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]

    @staticmethod
    def texts(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Texts one below the other, padded alike."""
        longest = max(ids.shape[1] for ids, _ in parts)
        ids, masks = zip(
            *[[functional.pad(each, (0, longest - each.shape[1])) for each in part] for part in parts], strict=True
        )
        return torch.cat(ids), torch.cat(masks)
