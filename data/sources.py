"""A source: samples by index, none read or decoded before it is asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mmbridge.data.block_shuffle import Blocks
from mmbridge.data.record import CAPTION_PROMPTS, PARTS, Part, Record, Task, captions, sample
from mmbridge.data.sample import Sample
from mmbridge.errors import DataError
from mmbridge.llm.templates import TemplateName

Counts = NDArray[np.int32]
"""(records, 4): captions, questions, ``pope`` questions and conversations of each record, in the order of ``PARTS``."""


class Source(Protocol):
    """Random access to samples. The same index is always the same sample; an index past the end is an IndexError.

    A source may have ``blocks`` as well, a ``Blocks`` or ``None``: the stretches of it that are cheap to read.
    """

    @property
    def name(self) -> str:
        """What errors and logs call it."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


class Records(Protocol):
    """Random access to records; a list of them will do."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...


class DataSet(Records, Protocol):
    """The records of a data set, opened: what each holds is known, and so is where it stands.

    It may have ``blocks``, as a ``Source`` may.
    """

    @property
    def counts(self) -> Counts: ...

    def where(self, index: int) -> str:
        """File and line, or shard and key, as errors say it."""
        ...


def count(records: Records) -> Counts:
    """Reads every record once to count what it holds."""
    held = chain.from_iterable(records[index].counts() for index in range(len(records)))
    return np.fromiter(held, np.int32).reshape(-1, len(PARTS))


class RecordSource:
    """The samples that records make for a task, in the order of the records and of the questions in each.

    Args:
        records: read one at a time, when a sample of theirs is asked for.
        task: ``caption`` is one sample a record, the others as many as the record has of it; ``all`` is a record's
            conversation if it has one, else its caption and all its questions.
        prompts: what a caption is asked for with.
        counts: what each record holds, where that is known; else every record is read once to count it.
        turns: how many ``vqa`` questions about one medium share a conversation; evaluation wants 1.
        together: how many samples about one medium are drawn at once, the first with the ``others``: captions of a
            record, or conversations; evaluation wants 1.
        template: what their prompts are written in, where it is not the bridge's.
        limit: at most so many draws.

    Raises:
        DataError: no record holds anything for the task.
    """

    def __init__(
        self,
        records: Records,
        task: Task,
        prompts: Sequence[str] = CAPTION_PROMPTS,
        name: str = "records",
        *,
        counts: Counts | None = None,
        turns: int = 1,
        together: int = 1,
        template: TemplateName | None = None,
        limit: int | None = None,
    ) -> None:
        self.name, self.task, self._template = name, task, template
        self._records, self._prompts, self._turns, self._together = records, tuple(prompts), turns, together
        self._held = _parts(count(records) if counts is None else counts, task, turns)
        self._parts = -(-self._held // together)
        self._ends = self._parts.sum(axis=1).cumsum()
        length = int(self._ends[-1]) if len(self._ends) else 0
        if length == 0:
            raise DataError(name, f"expected samples for the task {task}, found none", "choose another task")
        self._length = length if limit is None else min(limit, length)

    @property
    def blocks(self) -> Blocks | None:
        """How many draws each of the records' blocks makes, where they have any; those that make none are left out."""
        blocks: Blocks | None = getattr(self._records, "blocks", None)
        if blocks is None:
            return None
        ends = np.concatenate([[0], self._ends])[np.cumsum(blocks.sizes)]
        sizes = np.diff(np.minimum(ends, self._length), prepend=0)
        return Blocks(sizes[sizes > 0], blocks.window)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int, /) -> Sample:
        if not 0 <= index < self._length:
            raise IndexError(index)
        row, part, place = self.locate(index)
        record = self._records[row]
        held = len(captions(record)) if part == "caption" else int(self._held[row, PARTS.index(part)])
        begin = place * self._together
        places = range(begin, max(begin + 1, min(begin + self._together, held)))
        made = [sample(record, part, each, self._prompts, self._turns) for each in places]
        first, *others = [replace(each, template=self._template) for each in made] if self._template else made
        return replace(first, others=tuple(others)) if others else first

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def locate(self, index: int) -> tuple[int, Part, int]:
        """Which record a draw is made of, which part of it, and which one of that part."""
        row = int(np.searchsorted(self._ends, index, side="right"))
        held = self._parts[row]
        place = index - int(self._ends[row] - held.sum())
        for part, many in zip(PARTS, held, strict=True):
            if place < many:
                return row, part, place
            place -= int(many)
        raise AssertionError("an index below the last end lies in some part")


def _parts(counts: Counts, task: Task, turns: int) -> Counts:
    """(records, 4): how many samples each part of each record makes for a task."""
    made = counts.copy()
    made[:, 1] = -(-made[:, 1] // turns)
    if task == "all":
        given = made[:, 3] > 0
        made[given, :3] = 0
        return made
    made[:, [part != task for part in PARTS]] = 0
    return made
