"""What the loader hands to the bridge."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmbridge.data.sample import Sample
from mmbridge.encoders.base import Tiling, Views
from mmbridge.errors import UserError

if TYPE_CHECKING:
    from mmbridge.llm.prompt import Prompt


@dataclass(frozen=True, slots=True)
class BadSample:
    """A sample that cannot be used, and the error that says why."""

    id: str
    error: UserError


@dataclass(slots=True)
class Batch:
    """Prompts and prepared media of some samples.

    ``views`` holds for each encoder one entry a medium of its kind. ``media`` says for each prompt which of them its
    placeholders stand for, by number within their kind; where it is not given, every placeholder has its own, in the
    order of the prompts. ``bad`` are the samples that are missing: a batch without any good one is empty.
    """

    prompts: "tuple[Prompt, ...]"
    views: dict[str, list[Views]]
    samples: tuple[Sample, ...]
    bad: tuple[BadSample, ...] = field(default=())
    media: tuple[tuple[int, ...], ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.media:
            numbers: defaultdict[str, Iterator[int]] = defaultdict(count)
            kinds = [[placeholder.medium for placeholder in prompt.placeholders] for prompt in self.prompts]
            self.media = tuple(tuple(next(numbers[kind]) for kind in row) for row in kinds)

    def __len__(self) -> int:
        return len(self.prompts)

    def __reduce__(self) -> Any:
        """Sent from a worker, every tensor takes a file descriptor: the views of an encoder go as one."""
        packed = {name: _packed(views) for name, views in self.views.items()}
        return _unpacked, (self.prompts, packed, self.samples, self.bad, self.media)


_Packed = tuple[list[Tensor], list[int], list[Tiling | None]]


def _packed(views: Sequence[Views]) -> _Packed:
    """Inputs of equal shape joined along V; how many rows each medium has; tilings."""
    inputs = [view.inputs for view in views]
    if len({tensor.shape[1:] for tensor in inputs}) == 1:
        inputs = [torch.cat(inputs)]
    return inputs, [len(view.inputs) for view in views], [view.tiling for view in views]


def _unpacked(
    prompts: "tuple[Prompt, ...]",
    packed: Mapping[str, _Packed],
    samples: tuple[Sample, ...],
    bad: tuple[BadSample, ...],
    media: tuple[tuple[int, ...], ...],
) -> Batch:
    views = {}
    for name, (inputs, rows, tilings) in packed.items():
        if len(inputs) != len(rows):
            inputs = list(torch.split(inputs[0], rows))
        views[name] = [Views(tensor, tiling) for tensor, tiling in zip(inputs, tilings, strict=True)]
    return Batch(prompts, views, samples, bad, media)
