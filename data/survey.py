"""Which media a run will see: every distinct one, by content, and where it is found. Nothing is decoded."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from mmbridge.data.batch import BadSample
from mmbridge.data.media_key import KEY_BYTES, Keys, key_of, keys_of
from mmbridge.data.mixture import Mixture
from mmbridge.data.progress import Waiting
from mmbridge.data.sample import Medium, MediumKind, Sample
from mmbridge.data.workers import read_ahead
from mmbridge.errors import UserError

_AT_ONCE = 64

Places = NDArray[np.int64]
"""(n, 4): a reading, a source of its mixture, a sample of that, and which of the media drawn with the sample."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a run reads: the first ``draws`` of a mixture. If it ``skips``, samples that cannot be used are left out."""

    mixture: Mixture
    draws: int
    skips: bool

    def medium(self, source: int, sample: int, number: int) -> Medium:
        """One of the media of a sample of a source."""
        return _media(self.mixture.sources[source][sample])[number]


@dataclass(frozen=True, slots=True)
class Seen:
    """How often media are ``drawn`` in a reading, and how many ``distinct`` ones there are among them."""

    drawn: int
    distinct: int


@dataclass(frozen=True, slots=True)
class Survey:
    """``keys`` (n,) of the distinct media of one kind, in the order of the readings and of the samples in a source.

    ``places`` says where each is found first; ``seen`` has one entry a reading; ``bad`` are samples left out.
    """

    keys: Keys
    places: Places
    seen: tuple[Seen, ...]
    bad: tuple[BadSample, ...]


def survey(readings: Sequence[Reading], kind: MediumKind, workers: int = 0) -> Survey:
    """Reads every medium of a kind, once for each sample that has it.

    Args:
        workers: processes that share the work; 0 does it in this one.

    Raises:
        UserError: a sample cannot be read, and its reading does not skip such.
    """
    samples, times = _distinct_samples(readings)
    keys, places, bad = bytearray(), array("q"), list[BadSample]()
    drawn = [0] * len(readings)
    with Waiting("reading media", len(samples)) as waiting:
        for place, often, found in zip(samples, times, _found(readings, samples, kind, workers), strict=True):
            reading = int(place[0])
            if isinstance(found, BadSample):
                if not (readings[reading].skips and found.at_fault):
                    raise found.error
                bad.append(found)
            else:
                for number, key in found:
                    keys += key
                    places.extend((*place.tolist(), number))
                drawn[reading] += len(found) * int(often)
            waiting.advance()
    every = keys_of(np.frombuffer(keys, np.uint8).reshape(-1, KEY_BYTES))
    where: Places = np.array(places, np.int64).reshape(-1, 4)
    seen = [Seen(count, len(np.unique(every[where[:, 0] == reading]))) for reading, count in enumerate(drawn)]
    _, first = np.unique(every, return_index=True)
    first.sort()
    return Survey(every[first], where[first], tuple(seen), tuple(bad))


def _distinct_samples(readings: Sequence[Reading]) -> tuple[Places, Places]:
    """(samples, 3) reading, source and index of each sample that is drawn, in that order; and how often each is."""
    found, times = [], []
    for number, reading in enumerate(readings):
        located = chain.from_iterable(map(reading.mixture.locate, range(reading.draws)))
        drawn = np.fromiter(located, np.int64, 2 * reading.draws).reshape(-1, 2)
        distinct, counts = np.unique(drawn, axis=0, return_counts=True)
        found.append(np.insert(distinct, 0, number, axis=1))
        times.append(counts)
    return np.concatenate(found), np.concatenate(times)


def _media(sample: Sample) -> list[Medium]:
    """Those of a sample and of the samples drawn with it, each once."""
    found = {id(medium): medium for each in (sample, *sample.others) for medium in each.media}
    return [*found.values()]


_Found = list[tuple[int, bytes]] | BadSample
"""Which of a sample's media are of the kind, and their keys."""


def _found(readings: Sequence[Reading], samples: Places, kind: MediumKind, workers: int) -> Iterator[_Found]:
    data = _Keyed([reading.mixture for reading in readings], samples, kind)
    for batch in read_ahead(data, workers, batch_size=_AT_ONCE, collate_fn=list):
        yield from batch


class _Keyed(Dataset[_Found]):
    """Samples by number, read for the keys of their media."""

    def __init__(self, mixtures: Sequence[Mixture], samples: Places, kind: MediumKind) -> None:
        self._mixtures, self._samples, self._kind = mixtures, samples, kind

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> _Found:
        mixture, source, index = self._samples[number].tolist()
        try:
            sample = self._mixtures[mixture].sources[source][index]
        except UserError as error:
            return BadSample(error.where, error)
        try:
            media = enumerate(_media(sample))
            return [(place, key_of(medium)) for place, medium in media if medium.kind == self._kind]
        except UserError as error:
            return BadSample(sample.id, error)
