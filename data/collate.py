"""From samples to a batch: tokens and views, made in a loader worker."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmbridge.data.batch import BadSample, Batch
from mmbridge.data.looks import Ids, Looking
from mmbridge.data.media import LIMITS, Limits, image_size
from mmbridge.data.opening import open_medium
from mmbridge.data.sample import Medium, MediumKind, Sample
from mmbridge.encoders.base import Prepared, Tiling, Views
from mmbridge.errors import DataError, MediaError, UserError

if TYPE_CHECKING:
    from mmbridge.data.feature_cache import FeatureCache
    from mmbridge.llm.prompt import Prompt

Prepare = Mapping[str, tuple[MediumKind, Callable[[Any], Views]]]
"""For each encoder the medium it takes and its preprocessing."""

Length = Callable[[MediumKind, list[Tiling | None]], int]
"""How many perceptual tokens media of a kind become: their tilings by the first encoder of that kind, in order."""

Tile = Callable[[int, int], Tiling | None]
"""How an image of a width and a height is cut into tiles."""


@dataclass(frozen=True, slots=True)
class Collate:
    """Makes a ``Batch`` of samples. It can be pickled if its parts can.

    A sample that cannot be used (a medium that cannot be read or that no encoder takes, too long, or anything
    ``prompt`` refuses) is left out and listed in the batch's ``bad``; what becomes of that is the loader's to decide.
    A medium that several samples of a batch show is opened and prepared once.

    Args:
        prompt: a sample's prompt: ``Prompter.training``, or one for generation.
        length, max_length: with both, a sample that would be longer than so many positions is refused.
        tiling: how an image of a width and height will be cut into tiles, where it is.
        features: of media encoded before; a medium that all its encoders have there is not decoded.
        texts: for each connector with a text branch, a sample's text as token ids.
        instructions: for each connector that reads one, the kind of its media and the token ids of what stands beside
            each medium of a sample.
    """

    prompt: "Callable[[Sample], Prompt]"
    prepare: Prepare
    length: Length | None = None
    max_length: int | None = None
    tiling: Tile | None = None
    limits: Limits = field(default=LIMITS)
    features: "FeatureCache | None" = None
    texts: Mapping[str, Callable[[Sample], Ids]] = field(default_factory=dict)
    instructions: Mapping[str, tuple[MediumKind, Callable[[Sample], Sequence[Ids]]]] = field(default_factory=dict)

    def __call__(self, samples: Sequence[Sample | BadSample]) -> Batch:
        views: dict[str, list[Prepared]] = {name: [] for name in self.prepare}
        prompts, kept, bad, media, looked = [], [], [], [], []
        texts: dict[str, list[Ids]] = {name: [] for name in self.texts}
        looking = self._looking()
        opened: dict[_Key, _Media] = {}
        numbers: dict[_Key, int] = {}
        for sample in _all(samples):
            if isinstance(sample, BadSample):
                bad.append(sample)
                continue
            try:
                prompt, prepared = self._made(sample, opened)
                self._require_fit(sample, prompt, prepared)
                read = {name: text(sample) for name, text in self.texts.items()}
                told = self._told(sample)
            except UserError as error:
                bad.append(BadSample(sample.id, error))
                continue
            prompts.append(prompt)
            kept.append(sample)
            for name, ids in read.items():
                texts[name].append(ids)
            for medium, each in zip(sample.media, prepared, strict=True):
                if _key(medium) not in numbers:
                    numbers[_key(medium)] = sum(kind == medium.kind for kind, _ in numbers)
                    for name, view in each.items():
                        views[name].append(view)
            shown = [(medium.kind, numbers[_key(medium)]) for medium in sample.media]
            media.append(tuple(number for _, number in shown))
            beside = zip(shown, told, strict=True)
            looked.append(tuple(looking[kind].number(at, ids) if kind in looking else at for (kind, at), ids in beside))
        looks = {kind: each.looks for kind, each in looking.items()}
        return Batch(tuple(prompts), views, tuple(kept), tuple(bad), tuple(media), texts, looks, tuple(looked))

    def positions(self, sample: Sample) -> int:
        """How long a sample is in the LLM's input, be that too long or not; needs ``length``.

        Raises:
            UserError: it cannot be used for another reason.
        """
        return self._positions(*self._made(sample, {}))

    def extent(self, drawn: Sample | BadSample) -> tuple[int, int, int]:
        """What a draw will take, before any medium is decoded; needs ``length``.

        Returns:
            positions of its texts and, once each, of its looks; how many texts; positions of the longest of them. All
            zero where nothing can be used.
        """
        assert self.length is not None
        words, wholes, looks = 0, [], dict[tuple[_Key, tuple[Ids, ...]], int]()
        for sample in _all([drawn]):
            if isinstance(sample, BadSample):
                continue
            try:
                prompt = self.prompt(sample)
                shown = [(_key(medium), told) for medium, told in zip(sample.media, self._told(sample), strict=True)]
                for medium, look in zip(sample.media, shown, strict=True):
                    if look not in looks:
                        looks[look] = self.length(medium.kind, [self._tiling(medium)])
            except UserError:  # it is told when the batch is made
                continue
            text = len(prompt.ids) - len(prompt.placeholders)
            words += text
            wholes.append(text + sum(looks[look] for look in shown))
        return words + sum(looks.values()), len(wholes), max(wholes, default=0)

    def _looking(self) -> dict[MediumKind, Looking]:
        kinds = {kind for kind, _ in self.instructions.values()}
        return {kind: Looking([name for name, (own, _) in self.instructions.items() if own == kind]) for kind in kinds}

    def _told(self, sample: Sample) -> list[tuple[Ids, ...]]:
        """What is read beside each of its media, by the connectors that read an instruction."""
        read = [(kind, each(sample)) for kind, each in self.instructions.values()]
        media = enumerate(sample.media)
        return [tuple(ids[place] for kind, ids in read if kind == medium.kind) for place, medium in media]

    def _tiling(self, medium: Medium) -> Tiling | None:
        if self.tiling is None or medium.kind != "image":
            return None
        return self.tiling(*image_size(medium, self.limits))

    def _made(self, sample: Sample, opened: "dict[_Key, _Media]") -> "tuple[Prompt, list[_Media]]":
        """Its prompt, and each of its media prepared for the encoders that take it; ``opened`` are those of before."""
        prompt = self.prompt(sample)
        media, found = sample.media, [placeholder.medium for placeholder in prompt.placeholders]
        if [medium.kind for medium in media] != found:
            problem = f"expected a placeholder for each of {len(media)} media, found {len(found)}"
            raise DataError(f"sample {sample.id}", problem)
        for medium in media:
            if _key(medium) not in opened:
                opened[_key(medium)] = self._prepared(medium, sample.id)
        return prompt, [opened[_key(medium)] for medium in media]

    def _prepared(self, medium: Medium, name: str) -> "_Media":
        """A medium for each encoder that takes it: its features where they are kept, else its views."""
        takers = {encoder: prepare for encoder, (kind, prepare) in self.prepare.items() if kind == medium.kind}
        if not takers:
            kinds = ", ".join(sorted({kind for kind, _ in self.prepare.values()})) or "none"
            problem = f"expected media that an encoder takes ({kinds}), found {medium.kind}"
            raise DataError(f"sample {name}", problem)
        try:
            kept = self.features.find(medium, takers, self.limits) if self.features is not None else {}
            opened = open_medium(medium, self.limits) if len(kept) < len(takers) else None
            return {each: kept[each] if opened is None or each in kept else takers[each](opened) for each in takers}
        except MediaError as error:
            raise MediaError(f"sample {name}: {medium.name}", error.problem, error.fix) from error

    def _require_fit(self, sample: Sample, prompt: "Prompt", prepared: "Sequence[_Media]") -> None:
        if self.length is not None and self.max_length is not None:
            total = self._positions(prompt, prepared)
            if total > self.max_length:
                raise too_long(sample.id, total, self.max_length)

    def _positions(self, prompt: "Prompt", prepared: "Sequence[_Media]") -> int:
        assert self.length is not None
        total = len(prompt.ids) - len(prompt.placeholders)
        for placeholder, views in zip(prompt.placeholders, prepared, strict=True):
            total += self.length(placeholder.medium, [next(iter(views.values())).tiling])
        return total


_Media = Mapping[str, Prepared]
"""One medium for each encoder that takes it."""
_Key = tuple[MediumKind, Hashable]


def _key(medium: Medium) -> _Key:
    """What two media of a batch have in common if they are one: the path, or the very object in memory."""
    source = medium.source
    return medium.kind, source if isinstance(source, Path) else id(source)


def _all(samples: Iterable[Sample | BadSample]) -> Iterator[Sample | BadSample]:
    """Samples, and behind each those that are drawn with it."""
    for sample in samples:
        yield sample
        if isinstance(sample, Sample):
            yield from sample.others


def too_long(sample: str, positions: int, most: int) -> DataError:
    """What is said of a sample that does not fit into the LLM's input."""
    problem = f"expected at most {most} positions, found {positions}"
    return DataError(f"sample {sample}", problem, "shorten it or raise llm.max_length")
