"""Reading all of a data set, every row and every medium: what it holds, and what is wrong with it."""

from collections import Counter
from dataclasses import dataclass, field, replace

from PIL.Image import Image
from torch.utils.data import Dataset

from mmbridge.data.collate import Collate, too_long
from mmbridge.data.media import open_image
from mmbridge.data.problem import Problem
from mmbridge.data.progress import waited_for
from mmbridge.data.record import PARTS, Part, Record
from mmbridge.data.sample import Medium
from mmbridge.data.sources import DataSet, RecordSource
from mmbridge.data.vectors import open_vectors
from mmbridge.data.workers import read_ahead
from mmbridge.errors import UserError

_AT_ONCE = 16


@dataclass(slots=True)
class Findings:
    """What a data set holds.

    ``bad`` of the ``records`` have problems; nothing of a record that cannot be read is counted, nor its images that
    cannot be decoded. ``held`` is how many samples each task would find; ``sizes`` are width and height of every
    image; ``lengths`` are positions of every sample in the LLM's input, where a recipe says how long they are.
    ``first`` is the first record without a problem.
    """

    records: int
    bad: int = 0
    text_only: int = 0
    held: Counter[Part] = field(default_factory=Counter)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    first: int | None = None

    @property
    def kinds(self) -> list[tuple[str, int]]:
        """How many problems there are of each kind, most first."""
        return Counter(problem.kind for problem in self.problems).most_common()


@dataclass(slots=True)
class _Seen:
    """What one record holds; nothing, if it cannot be read."""

    problems: list[Problem]
    counts: tuple[int, ...] = (0,) * len(PARTS)
    text_only: bool = False
    sizes: list[tuple[int, int]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)


def check(records: DataSet, collate: Collate | None = None, workers: int = 0) -> Findings:
    """Reads every record and decodes every medium.

    Args:
        records: opened ``late``, so that all that is wrong is found, not only the first thing.
        collate: measures every sample of every record that is whole, each caption, question and conversation by
            itself; those it refuses, and those longer than its ``max_length``, are problems.
        workers: processes that share the work; 0 does it in this one.
    """
    findings = Findings(len(records))
    batches = read_ahead(_Examined(records, collate), workers, batch_size=_AT_ONCE, collate_fn=list)
    seen = (each for batch in batches for each in batch)
    for index, each in enumerate(waited_for(seen, "checking", len(records))):
        findings.bad += bool(each.problems)
        findings.text_only += each.text_only
        findings.held.update(dict(zip(PARTS, each.counts, strict=True)))
        findings.sizes += each.sizes
        findings.lengths += each.lengths
        findings.problems += each.problems
        if findings.first is None and not each.problems and any(each.counts):
            findings.first = index
    return findings


class _Examined(Dataset[_Seen]):
    """Records by index, looked through."""

    def __init__(self, records: DataSet, collate: Collate | None) -> None:
        self._records, self._collate = records, collate

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> _Seen:
        where = self._records.where(index)
        try:
            record = self._records[index]
        except UserError as error:
            return _Seen([Problem.of(error, where)])
        seen, decoded = _Seen([], record.counts(), not record.media), list[Medium]()
        for medium in record.media:
            try:
                opened = open_vectors(medium) if medium.kind == "vector" else open_image(medium)
            except UserError as error:
                seen.problems.append(Problem.of(error, where))
            else:
                if isinstance(opened, Image):
                    seen.sizes.append(opened.size)
                decoded.append(replace(medium, source=opened))
        if self._collate is not None and not seen.problems and any(seen.counts):
            self._measure(self._collate, record.with_media(decoded), seen, where)
        return seen

    def _measure(self, collate: Collate, record: Record, seen: _Seen, where: str) -> None:
        for sample in RecordSource([record], "all"):
            try:
                seen.lengths.append(collate.positions(sample))
                if collate.max_length is not None and seen.lengths[-1] > collate.max_length:
                    raise too_long(sample.id, seen.lengths[-1], collate.max_length)
            except UserError as error:
                seen.problems.append(Problem.of(error, where))
