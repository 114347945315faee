"""What the loader hands to the bridge."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmbridge.data.looks import Ids, Looks
from mmbridge.data.sample import MediumKind, Sample
from mmbridge.encoders.base import Grid, Prepared, Stored, Tiling, Views
from mmbridge.errors import FeatureError, SourceError, UserError

if TYPE_CHECKING:
    from mmbridge.llm.prompt import Prompt


@dataclass(frozen=True, slots=True)
class BadSample:
    """A sample that cannot be used, and the error that says why."""

    id: str
    error: UserError

    @property
    def at_fault(self) -> bool:
        """Whether it may be left out; features on disk or a source that fail would take others with them."""
        return not isinstance(self.error, (FeatureError, SourceError))


@dataclass(slots=True)
class Batch:
    """Prompts and prepared media of some samples.

    ``views`` holds for each encoder one entry a medium of its kind. ``media`` says for each prompt which of them its
    placeholders stand for, by number within their kind; where it is not given, every placeholder has its own, in the
    order of the prompts. ``bad`` are the samples that are missing: a batch without any good one is empty. ``texts``
    holds for each connector with a text branch the token ids of every sample's text.

    ``looks`` are those at the media of each kind that a connector reads an instruction with; ``looked`` says for each
    prompt which of them its placeholders stand for. Of other kinds, looks are media.
    """

    prompts: "tuple[Prompt, ...]"
    views: dict[str, list[Prepared]]
    samples: tuple[Sample, ...]
    bad: tuple[BadSample, ...] = field(default=())
    media: tuple[tuple[int, ...], ...] = field(default=())
    texts: dict[str, list[Ids]] = field(default_factory=dict)
    looks: dict[MediumKind, Looks] = field(default_factory=dict)
    looked: tuple[tuple[int, ...], ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.media:
            numbers: defaultdict[str, Iterator[int]] = defaultdict(count)
            kinds = [[placeholder.medium for placeholder in prompt.placeholders] for prompt in self.prompts]
            self.media = tuple(tuple(next(numbers[kind]) for kind in row) for row in kinds)
        if not self.looked:
            self.looked = self.media

    def __len__(self) -> int:
        return len(self.prompts)

    def __reduce__(self) -> Any:
        """Sent from a worker, every tensor takes a file descriptor: the views of an encoder go as one."""
        packed = {name: _packed(views) for name, views in self.views.items()}
        rest = self.samples, self.bad, self.media, self.texts, self.looks, self.looked
        return _unpacked, (self.prompts, packed, *rest)


@dataclass(frozen=True, slots=True)
class _Packed:
    """An encoder's media in few tensors: ``inputs`` of those to be encoded, joined along V where they are of one shape,
    and the joined ``values`` of those encoded before; for each medium its rows there, its tiling, and, if it was
    encoded before, the lengths and grids of its views."""

    inputs: list[Tensor]
    values: Tensor | None
    media: list[tuple[int, Tiling | None, tuple[tuple[int, ...], tuple[Grid, ...]] | None]]


def _packed(media: Sequence[Prepared]) -> _Packed:
    inputs = [each.inputs for each in media if isinstance(each, Views)]
    if len({tensor.shape[1:] for tensor in inputs}) == 1:
        inputs = [torch.cat(inputs)]
    values = [each.values for each in media if isinstance(each, Stored)]
    return _Packed(
        inputs,
        torch.cat(values) if values else None,  # copied out of the memory map that they are pages of
        [
            (len(each.inputs), each.tiling, None)
            if isinstance(each, Views)
            else (len(each.values), each.tiling, (each.lengths, each.grids))
            for each in media
        ],
    )


def _unpacked(prompts: "tuple[Prompt, ...]", packed: Mapping[str, _Packed], *rest: Any) -> Batch:
    return Batch(prompts, {name: _prepared(each) for name, each in packed.items()}, *rest)


def _prepared(packed: _Packed) -> list[Prepared]:
    live = [rows for rows, _, kept in packed.media if kept is None]
    inputs = packed.inputs if len(packed.inputs) == len(live) else torch.split(packed.inputs[0], live)
    stored = [rows for rows, _, kept in packed.media if kept is not None]
    each_input, each_values = iter(inputs), iter(() if packed.values is None else torch.split(packed.values, stored))
    return [
        Views(next(each_input), tiling) if kept is None else Stored(next(each_values), *kept, tiling)
        for _, tiling, kept in packed.media
    ]
