"""Controls that must fail: a bridge shown the wrong media, and a bridge whose connectors have learnt nothing.

A score means that the bridge sees only if these fall to chance (``mmbridge.evaluation.chance``).
"""

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np

from mmbridge.data.sample import Medium, Message, Sample
from mmbridge.data.sources import Source
from mmbridge.errors import DataError

if TYPE_CHECKING:
    from mmbridge.bridge import Bridge
    from mmbridge.encoders.base import EncoderFacts


class ShuffledMedia:
    """A source whose questions and captions stand beside another sample's media; its truth stays as it was.

    Partners follow one random cycle through all samples, so none is its own. A partner is passed over for the next on
    the cycle while its media are the same (several questions about one picture) or of other kinds or number.
    """

    def __init__(self, source: Source, seed: int = 0) -> None:
        self._source = source
        order = np.random.default_rng(seed).permutation(len(source))
        self._next = np.empty_like(order)
        self._next[order] = np.roll(order, -1)

    @property
    def name(self) -> str:
        return f"{self._source.name} with shuffled media"

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        """The sample with another's media.

        Raises:
            DataError: no other sample has different media of the same kinds.
        """
        sample = self._source[index]
        if not sample.media:
            return sample
        partner = int(self._next[index])
        while partner != index:
            media = self._source[partner].media
            if _exchangeable(sample.media, media):
                return replace(sample, messages=_with_media(sample.messages, media))
            partner = int(self._next[partner])
        raise DataError(sample.id, "expected another sample with different media of the same kinds, found none")


def _exchangeable(own: tuple[Medium, ...], other: tuple[Medium, ...]) -> bool:
    kinds = [medium.kind for medium in own] == [medium.kind for medium in other]
    return kinds and all(a.source != b.source for a, b in zip(own, other, strict=True))


def _with_media(messages: tuple[Message, ...], media: tuple[Medium, ...]) -> tuple[Message, ...]:
    """The messages with their media replaced in order."""
    left = iter(media)
    return tuple(
        replace(message, content=tuple(part if isinstance(part, str) else next(left) for part in message.content))
        for message in messages
    )


def with_random_connectors(bridge: "Bridge", seed: int = 0) -> "Bridge":
    """A bridge that shares the frozen parts of another and has connectors as fresh as before training.

    The given bridge is left as it is; its encoders and its LLM are shared, not copied.
    """
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = {
            name: config.build(
                [cast("EncoderFacts", bridge.encoders[encoder].facts) for encoder in config.encoders],
                bridge.words,
                f"connectors.{name}",
            )
            for name, config in bridge.recipe.connectors.items()
        }
    twin = copy.copy(bridge)
    twin._modules = dict(bridge._modules)
    twin.connectors = nn.ModuleDict(fresh).eval()
    for name, connector in fresh.items():
        old = next(bridge.connectors[name].parameters(), None)
        if old is not None:
            connector.to(device=old.device, dtype=old.dtype)
    return twin
