"""Batches of a mixture in order, read ahead by worker processes if asked for."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from torch.utils.data import Dataset

from mmbridge.checkpoint import State
from mmbridge.data.batch import BadSample, Batch
from mmbridge.data.collate import Collate
from mmbridge.data.config import SkipConfig
from mmbridge.data.dealing import Dealing
from mmbridge.data.mixture import Mixture
from mmbridge.data.sample import Sample
from mmbridge.data.workers import read_ahead
from mmbridge.errors import DataError, UserError
from mmbridge.ranks import ALONE, Ranks


class Loader:
    """Yields the batches of a stage; iterating again begins again where the first time began.

    Batch b of n processes is draws b·n·batch up to (b + 1)·n·batch of the mixture, cut evenly in the order of the
    ranks: nothing else decides what is in it. A sample left out leaves a gap and moves no other. Where it stands is
    told in draws, so that another number of processes can go on from there.

    Args:
        batch: draws of one batch on one rank.
        batches: where to stop, counted from the start of the stage; one epoch of the mixture when left out, of which
            the last batch may be short.
        accumulate: batches of one step.
        budget: positions of a batch at most. Then ``batch`` are the draws of a step, and ``accumulate`` is left out:
            they are dealt to processes and batches by their lengths, ``packed`` or padded.
        workers: processes that work ahead; 0 works in this one. The batches are the same.
        on_bad_sample: ``raise``, or the fraction of the stage's draws that may be left out, in each process. Features
            on disk that cannot be used, or a source out of reach, are no sample's fault, and always raise.
        ranks: the processes that share each batch.

    Raises:
        UserError: while iterating: the error of the first bad sample, or a DataError when too many were left out.
    """

    def __init__(
        self,
        mixture: Mixture,
        collate: Collate,
        *,
        batch: int,
        batches: int | None = None,
        workers: int = 0,
        on_bad_sample: Literal["raise"] | SkipConfig = "raise",
        ranks: Ranks = ALONE,
        accumulate: int = 1,
        budget: int | None = None,
        packed: bool = True,
    ) -> None:
        assert budget is None or accumulate == 1
        draws = len(mixture) if batches is None else batches * batch * ranks.count
        dealing = None if budget is None else Dealing(collate, ranks.rank, ranks.count, budget, packed)
        self._batches, self._ranks = _Batches(batch, draws, ranks if dealing is None else ALONE, ranks.count), ranks
        self._mixture, self.collate = mixture, collate
        self._accumulate = accumulate
        self._allowed = -1 if on_bad_sample == "raise" else int(on_bad_sample.skip_up_to * draws / ranks.count)
        self._before: tuple[str, ...] = ()
        self.skipped: list[str] = []
        self._yielded = 0
        self._loader = read_ahead(
            Draws(mixture),
            workers,
            batch_sampler=self._batches,
            collate_fn=dealing or _One(collate),
            persistent_workers=workers > 0,
        )

    def __len__(self) -> int:
        """Batches that iterating yields."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        for dealt in self._dealt():
            yield from dealt

    def steps(self) -> Iterator[list[Batch]]:
        """The batches of one step after the other."""
        dealt = self._dealt()
        while step := [batch for each in islice(dealt, self._accumulate) for batch in each]:
            yield step

    def _dealt(self) -> Iterator[list[Batch]]:
        self.skipped, self._yielded = list(self._before), self._batches.first
        for batches in self._loader:
            for bad in (bad for batch in batches for bad in batch.bad):
                self._leave_out(bad)
            self._yielded += 1
            yield batches

    def drawn(self, many: int) -> list[Sample]:
        """The samples of the first draws of the stage, or of all if it has fewer, but for those that cannot be read."""
        draws = Draws(self._mixture)
        found = [draws[draw] for draw in range(min(many, self._batches.draws))]
        return [each for each in found if isinstance(each, Sample)]

    def all_skipped(self) -> list[str]:
        """The ids left out in all processes."""
        return [each for ids in self._ranks.texts(json.dumps(self.skipped)) for each in json.loads(ids)]

    def state(self) -> State:
        """Where the iteration under way stands."""
        return State({}, {"draws": self._yielded * self._batches.draws_at_once, "skipped": self.all_skipped()})

    def load_state(self, state: State) -> None:
        """Iterating begins there from now on; what was left out before still counts, shared among the processes."""
        self._batches.first = state.values["draws"] // self._batches.draws_at_once
        self._before = tuple(state.values["skipped"][self._ranks.rank :: self._ranks.count])

    def _leave_out(self, bad: BadSample) -> None:
        if self._allowed < 0 or not bad.at_fault:
            raise bad.error
        self.skipped.append(bad.id)
        if len(self.skipped) > self._allowed:
            problem = f"expected at most {self._allowed} bad samples, found {len(self.skipped)}, the last: {bad.error}"
            raise DataError("on_bad_sample", problem, "mend the data or raise skip_up_to")


class _Batches:
    """The draws of each batch, from the batch ``first`` on: ``shares`` times ``batch``, or this rank's part of them."""

    first = 0

    def __init__(self, batch: int, draws: int, ranks: Ranks, shares: int) -> None:
        self.draws, self._ranks, self.draws_at_once = draws, ranks, batch * shares
        self._stop = -(-draws // self.draws_at_once)

    def __len__(self) -> int:
        return max(0, self._stop - self.first)

    def __iter__(self) -> Iterator[list[int]]:
        size = self.draws_at_once // self._ranks.count
        for number in range(self.first, self._stop):
            start = number * self.draws_at_once + self._ranks.rank * size
            yield list(range(start, min(start + size, self.draws)))


@dataclass(frozen=True, slots=True)
class _One:
    """A batch, as the only one."""

    collate: Collate

    def __call__(self, drawn: Sequence[Sample | BadSample]) -> list[Batch]:
        return [self.collate(drawn)]


class Draws(Dataset[Sample | BadSample]):
    """Draws of a mixture by number; errors of the data are carried as values, since torch would rewrite them."""

    def __init__(self, mixture: Mixture) -> None:
        self._mixture = mixture

    def __getitem__(self, draw: int) -> Sample | BadSample:
        try:
            return self._mixture[draw]
        except UserError as error:
            return BadSample(error.where, error)
