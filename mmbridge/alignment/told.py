"""Samples as alignment reads them: what is shown, asked and answered, in one conversation."""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import replace

from mmbridge.bridge import Bridge
from mmbridge.data.batch import Batch
from mmbridge.data.sample import Message, Sample
from mmbridge.data.sources import Source
from mmbridge.errors import DataError
from mmbridge.evaluation.captions import references
from mmbridge.evaluation.reading import readable
from mmbridge.evaluation.report import Failure


def told(sample: Sample) -> Sample:
    """The sample with its answer said: its own, else the first reference or answer of its truth.

    Raises:
        DataError: it shows no medium, or nothing is known to say of it.
    """
    if not sample.media:
        raise DataError(sample.id, "expected a medium, found none")
    last = sample.messages[-1]
    if last.role == "assistant":
        if not any(isinstance(part, str) and part.strip() for part in last.content):
            raise DataError(sample.id, "expected an answer, found an empty one")
        return replace(sample, others=())
    known = [*references(sample.truth), *sample.truth.get("answers", ())]
    if not known:
        raise DataError(sample.id, "expected an answer, a caption or references in its truth, found none")
    return replace(sample, messages=(*sample.messages, Message("assistant", (known[0],))), others=())


def told_batches(
    bridge: Bridge, source: Source, indices: Iterable[int], size: int, failed: MutableMapping[int, Failure]
) -> Iterator[tuple[Batch, int]]:
    """Batches with something in them, and the index up to which the source has been read; what cannot be used is in
    ``failed``."""
    collate, waiting, last = bridge.collate(), list[tuple[int, Sample]](), 0

    def made() -> Batch:
        batch = collate([sample for _, sample in waiting])
        bad = {each.id: str(each.error) for each in batch.bad}
        failed.update((index, Failure(sample.id, bad[sample.id])) for index, sample in waiting if sample.id in bad)
        waiting.clear()
        return batch

    for last, sample in readable(source, indices, failed):
        try:
            waiting.append((last, told(sample)))
        except DataError as error:
            failed[last] = Failure(sample.id, str(error))
        if len(waiting) == size and len(batch := made()):
            yield batch, last + 1
    if waiting and len(batch := made()):
        yield batch, last + 1


def none_usable(source: Source, failed: Mapping[int, Failure]) -> DataError:
    """The error where no sample is left, and why the first was not."""
    why = f": {next(iter(failed.values())).error}" if failed else ""
    return DataError(source.name, f"expected samples with a medium and text, found none that can be used{why}")
