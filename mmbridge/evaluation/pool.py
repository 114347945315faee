"""The media and the texts of a source as directions of a space, each read once, shared by the processes there are.

Media of equal content are one medium, whatever samples show it; equal texts are one text, right for all media that have
it. What is kept of them is directions and names.

Symbols: N media, P texts, M directions of a medium, D width of the space.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mmbridge.bridge import Bridge
from mmbridge.data.media_key import key_of
from mmbridge.data.sample import MediumKind, Sample
from mmbridge.data.sources import Source
from mmbridge.errors import DataError, MediaError
from mmbridge.evaluation.captions import references
from mmbridge.evaluation.progress import Progress
from mmbridge.evaluation.reading import extent, readable
from mmbridge.evaluation.report import Failure
from mmbridge.ranks import Ranks
from mmbridge.spaces import Space, shown


@dataclass(slots=True)
class Shown:
    """A medium: the ids of the samples that show it by their indices, and what is right to say of it."""

    kind: MediumKind
    samples: dict[int, str] = field(default_factory=dict)
    texts: dict[str, None] = field(default_factory=dict)
    perceptual_tokens: int = 0

    @property
    def index(self) -> int:
        """Of the first sample that shows it."""
        return next(iter(self.samples))

    @property
    def id(self) -> str:
        return self.samples[self.index]


@dataclass(frozen=True, slots=True)
class Pool:
    """``media`` (N, M, D) are the directions of ``shown``, and ``texts`` (P, D) those of ``said``, each text with its
    token ids; both in float32 and main memory.

    ``failed`` are the samples that are not in it, by their indices; ``seconds`` the time that directions took here.
    """

    shown: tuple[Shown, ...]
    said: Mapping[str, tuple[int, ...]]
    media: Tensor
    texts: Tensor
    failed: Mapping[int, Failure]
    seconds: float

    @property
    def right(self) -> Tensor:
        """(pairs, 2): a medium's number and that of a text of its own."""
        numbers = {text: number for number, text in enumerate(self.said)}
        pairs = [(medium, numbers[text]) for medium, each in enumerate(self.shown) for text in each.texts]
        return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)


def pooled(bridge: Bridge, space: Space, source: Source, limit: int | None, size: int, ranks: Ranks) -> Pool:
    """Reads a source.

    Args:
        limit: at most so many samples, from the first.
        size: media or texts of one batch.

    Raises:
        DataError: an empty source, or a sample without a caption or with anything but one medium. One that cannot be
            read is in ``failed`` instead.
    """
    reading, collate = _Reading(source, space), bridge.collate()
    directions, outcomes, seconds = dict[int, Tensor](), dict[int, int | str](), 0.0
    for turn, fresh in enumerate(reading.media(extent(source, limit), size)):
        if turn % ranks.count != ranks.rank:
            continue
        start = time.perf_counter()
        batch = collate([sample for _, sample in fresh])
        good = {id(sample) for sample in batch.samples}
        numbers = [number for number, sample in fresh if id(sample) in good]
        bad = [number for number, sample in fresh if id(sample) not in good]
        outcomes |= {number: str(each.error) for number, each in zip(bad, batch.bad, strict=True)}
        if numbers:
            directions |= zip(numbers, space.media(batch).cpu(), strict=True)
            outcomes |= zip(numbers, (counts[0] for counts in bridge.perceptual_tokens(batch)), strict=True)
        seconds += time.perf_counter() - start
    all_shown = reading.settled(_of_all(outcomes, ranks))
    said = {text: reading.said[text] for each in all_shown for text in each.texts}
    ids, told = list(said.values()), dict[int, Tensor]()
    by_length = sorted(range(len(ids)), key=lambda number: len(ids[number]))
    start = time.perf_counter()
    for turn, begin in enumerate(range(0, len(ids), size)):
        if turn % ranks.count == ranks.rank:
            numbers = by_length[begin : begin + size]
            told |= zip(numbers, space.texts([ids[number] for number in numbers]).cpu(), strict=True)
    seconds += time.perf_counter() - start
    media, texts = _joined(directions, space.shape, ranks), _joined(told, space.shape[1:], ranks)
    return Pool(tuple(all_shown), said, media, texts, reading.failed, seconds)


class _Reading:
    """Samples on their way into a pool: ``said`` and ``failed`` as there."""

    def __init__(self, source: Source, space: Space) -> None:
        self._source, self._space = source, space
        self._shown: dict[bytes, Shown] = {}
        self.said: dict[str, tuple[int, ...]] = {}
        self.failed: dict[int, Failure] = {}

    def media(self, total: int, size: int) -> Iterator[list[tuple[int, Sample]]]:
        """Media that no sample before shows, with their numbers, in batches."""
        fresh: list[tuple[int, Sample]] = []
        with Progress("eval retrieval", total) as progress:
            for index, sample in readable(self._source, range(total), self.failed):
                progress.advance(1)
                if self._is_fresh(index, sample):
                    fresh.append((len(self._shown) - 1, shown(sample.id, sample.media[0])))
                if len(fresh) == size:
                    yield fresh
                    fresh = []
            if fresh:
                yield fresh

    def _is_fresh(self, index: int, sample: Sample) -> bool:
        texts = [text.strip() for text in references(sample.truth)]
        if not texts:
            raise DataError(sample.id, "expected a caption or references in its truth, found neither")
        if len(sample.media) != 1:
            raise DataError(sample.id, f"expected one medium, found {len(sample.media)}")
        (medium,) = sample.media
        try:
            key = key_of(medium)
            ids = {text: self._space.ids(text, sample.id) for text in texts if text not in self.said}
        except (MediaError, DataError) as error:
            self.failed[index] = Failure(sample.id, str(error))
            return False
        fresh = key not in self._shown
        entry = self._shown.setdefault(key, Shown(medium.kind))
        self.said |= ids
        entry.samples[index] = sample.id
        entry.texts |= dict.fromkeys(texts)
        return fresh

    def settled(self, outcomes: Mapping[int, int | str]) -> list[Shown]:
        """The media that could be used, once it is known of each how many perceptual tokens it became, or why none."""
        good = []
        for number, entry in enumerate(self._shown.values()):
            outcome = outcomes[number]
            if isinstance(outcome, str):
                self.failed |= {index: Failure(name, outcome) for index, name in entry.samples.items()}
            else:
                entry.perceptual_tokens = outcome
                good.append(entry)
        return good


def _of_all(outcomes: Mapping[int, Any], ranks: Ranks) -> dict[int, Any]:
    """What all processes have found."""
    parts = [json.loads(text) for text in ranks.texts(json.dumps(outcomes))]
    return {int(number): each for part in parts for number, each in part.items()}


def _joined(directions: Mapping[int, Tensor], shape: Sequence[int], ranks: Ranks) -> Tensor:
    """(N, *shape): those of all processes, by their numbers."""
    own = torch.stack(list(directions.values())) if directions else torch.empty(0, *shape)
    numbers = torch.cat(ranks.rows(torch.tensor(list(directions), dtype=torch.long)))
    return torch.cat(ranks.rows(own))[numbers.argsort()]
