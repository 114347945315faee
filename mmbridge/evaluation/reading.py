"""Reading the samples of a source for an evaluation run, whatever is made of them then."""

from collections.abc import Iterable, Iterator, MutableMapping

from mmbridge.data.sample import Sample
from mmbridge.data.sources import Source
from mmbridge.errors import DataError, MediaError
from mmbridge.evaluation.report import Failure


def extent(source: Source, limit: int | None) -> int:
    """How many samples a run reads: all, or the first ``limit``.

    Raises:
        DataError: there is none.
    """
    total = len(source) if limit is None else min(limit, len(source))
    if total == 0:
        raise DataError(source.name, "expected at least one sample, found none")
    return total


def readable(
    source: Source, indices: Iterable[int], failed: MutableMapping[int, Failure]
) -> Iterator[tuple[int, Sample]]:
    """Samples with their indices; what cannot be read goes to ``failed``."""
    for index in indices:
        try:
            yield index, source[index]
        except (MediaError, DataError) as error:
            failed[index] = Failure(f"{source.name}[{index}]", str(error))
