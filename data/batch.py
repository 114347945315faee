"""What the loader hands to the bridge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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

    ``views`` holds for each encoder one entry a medium of its kind, in the order of the prompts and of the
    placeholders in each. ``bad`` are the samples that are missing from it: a batch without any good one is empty.
    """

    prompts: "tuple[Prompt, ...]"
    views: dict[str, list[Views]]
    samples: tuple[Sample, ...]
    bad: tuple[BadSample, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.prompts)

    def __reduce__(self) -> Any:
        """Sent from a worker, every tensor takes a file descriptor: the views of an encoder go as one."""
        packed = {name: _packed(views) for name, views in self.views.items()}
        return _unpacked, (self.prompts, packed, self.samples, self.bad)


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
) -> Batch:
    views = {}
    for name, (inputs, rows, tilings) in packed.items():
        if len(inputs) != len(rows):
            inputs = list(torch.split(inputs[0], rows))
        views[name] = [Views(tensor, tiling) for tensor, tiling in zip(inputs, tilings, strict=True)]
    return Batch(prompts, views, samples, bad)
