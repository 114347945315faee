"""From samples to a batch: tokens and views, made in a loader worker."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL.Image import Image

from mmbridge.data.batch import BadSample, Batch
from mmbridge.data.media import LIMITS, Limits, open_image
from mmbridge.data.sample import Medium, MediumKind, Sample
from mmbridge.encoders.base import Tiling, Views
from mmbridge.errors import DataError, MediaError, UserError

if TYPE_CHECKING:
    from mmbridge.llm.prompt import Prompt

Prepare = Mapping[str, tuple[MediumKind, Callable[[Image], Views]]]
"""For each encoder the medium it takes and its preprocessing."""

Length = Callable[[MediumKind, list[Tiling | None]], int]
"""How many perceptual tokens media of a kind become: their tilings by the first encoder of that kind, in order."""


@dataclass(frozen=True, slots=True)
class Collate:
    """Makes a ``Batch`` of samples. It can be pickled if its parts can.

    A sample that cannot be used (a medium that cannot be read or that no encoder takes, too long, or anything
    ``prompt`` refuses) is left out and listed in the batch's ``bad``; what becomes of that is the loader's to decide.

    Args:
        prompt: a sample's prompt: ``Prompter.training``, or one for generation.
        length, max_length: with both, a sample that would be longer than so many positions is refused.
    """

    prompt: "Callable[[Sample], Prompt]"
    prepare: Prepare
    length: Length | None = None
    max_length: int | None = None
    limits: Limits = field(default=LIMITS)

    def __call__(self, samples: Sequence[Sample | BadSample]) -> Batch:
        views: dict[str, list[Views]] = {name: [] for name in self.prepare}
        prompts, kept, bad = [], [], []
        for sample in samples:
            if isinstance(sample, BadSample):
                bad.append(sample)
                continue
            try:
                prompt, prepared = self._made(sample)
                self._require_fit(sample, prompt, prepared)
            except UserError as error:
                bad.append(BadSample(sample.id, error))
                continue
            prompts.append(prompt)
            kept.append(sample)
            for name in views:
                views[name] += prepared[name]
        return Batch(tuple(prompts), views, tuple(kept), tuple(bad))

    def positions(self, sample: Sample) -> int:
        """How long a sample is in the LLM's input, be that too long or not; needs ``length``.

        Raises:
            UserError: it cannot be used for another reason.
        """
        return self._positions(*self._made(sample))

    def _made(self, sample: Sample) -> "tuple[Prompt, dict[str, list[Views]]]":
        prompt = self.prompt(sample)
        media, found = sample.media, [placeholder.medium for placeholder in prompt.placeholders]
        if [medium.kind for medium in media] != found:
            problem = f"expected a placeholder for each of {len(media)} media, found {len(found)}"
            raise DataError(f"sample {sample.id}", problem)
        views: dict[str, list[Views]] = {name: [] for name in self.prepare}
        for medium in media:
            takers = [(name, prepare) for name, (kind, prepare) in self.prepare.items() if kind == medium.kind]
            if not takers:
                kinds = ", ".join(sorted({kind for kind, _ in self.prepare.values()})) or "none"
                problem = f"expected media that an encoder takes ({kinds}), found {medium.kind}"
                raise DataError(f"sample {sample.id}", problem)
            image = self._image(medium, sample.id)
            for name, prepare in takers:
                views[name].append(prepare(image))
        return prompt, views

    def _image(self, medium: Medium, name: str) -> Image:
        try:
            return open_image(medium, self.limits)
        except MediaError as error:
            raise MediaError(f"sample {name}: {error.where}", error.problem, error.fix) from error

    def _require_fit(self, sample: Sample, prompt: "Prompt", views: Mapping[str, Sequence[Views]]) -> None:
        if self.length is not None and self.max_length is not None:
            total = self._positions(prompt, views)
            if total > self.max_length:
                raise too_long(sample.id, total, self.max_length)

    def _positions(self, prompt: "Prompt", views: Mapping[str, Sequence[Views]]) -> int:
        assert self.length is not None
        total, counted = len(prompt.ids) - len(prompt.placeholders), set()
        for name, (kind, _) in self.prepare.items():
            if kind not in counted and views[name]:
                total += self.length(kind, [view.tiling for view in views[name]])
                counted.add(kind)
        return total


def too_long(sample: str, positions: int, most: int) -> DataError:
    """What is said of a sample that does not fit into the LLM's input."""
    problem = f"expected at most {most} positions, found {positions}"
    return DataError(f"sample {sample}", problem, "shorten it or raise llm.max_length")
