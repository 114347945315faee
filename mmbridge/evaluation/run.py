"""One evaluation run: every sample of a source through ``bridge.generate``, then the task's scores.

The run is deterministic: batches depend on the source alone, and the options carry the seed of what is sampled. Several
processes take the batches in turn.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain
from typing import TYPE_CHECKING, Literal, Protocol

from mmbridge.answer import Answer
from mmbridge.data.sample import Message, Sample
from mmbridge.data.sources import Source
from mmbridge.errors import DataError, MediaError
from mmbridge.evaluation.bootstrap import Estimate
from mmbridge.evaluation.captions import caption_scores, references
from mmbridge.evaluation.ceilings import ceilings
from mmbridge.evaluation.facts import Parser
from mmbridge.evaluation.flops import executed_flops
from mmbridge.evaluation.pope import pope_scores, yes_or_no
from mmbridge.evaluation.progress import Progress
from mmbridge.evaluation.reading import extent, readable
from mmbridge.evaluation.report import Failure, Report, Row
from mmbridge.evaluation.vqa import vqa_scores
from mmbridge.llm.config import GenerationOptions

if TYPE_CHECKING:
    from mmbridge.ranks import Ranks
    from mmbridge.recipe import Recipe

Task = Literal["caption", "vqa", "pope"]

_WINDOW = 16
"""Batches whose samples are held in memory and ordered by prompt length together."""

_COUNTED = 32
"""Samples answered once more to count FLOPs."""

_GREEDY = GenerationOptions()


class Answering(Protocol):
    """What is asked of a bridge."""

    @property
    def recipe(self) -> "Recipe": ...

    def generate(self, messages: Sequence[Sequence[Message]], options: GenerationOptions, /) -> Sequence[Answer]: ...


def evaluate(
    bridge: Answering,
    source: Source,
    task: Task,
    options: GenerationOptions = _GREEDY,
    limit: int | None = None,
    batch_size: int = 32,
    *,
    parse_facts: Parser | None = None,
    count_flops: bool = True,
    ranks: "Ranks | None" = None,
) -> Report:
    """Answers every sample of a source and scores the answers.

    Args:
        bridge: anything with ``generate`` and ``recipe``.
        source: samples whose truth fits the task: ``caption`` or ``references`` (and ``facts``) for captions,
            ``answers`` (and ``kind``) for vqa and pope.
        task: which scores.
        options: of generation; greedy by default.
        limit: at most so many samples, from the first.
        batch_size: samples of one call of ``generate``.
        parse_facts: from a caption to the facts it states; the embedded world's reader by default. Used only where
            the truth has facts.
        count_flops: also says how many were executed, for which a batch is answered twice.
        ranks: the processes that share the work; each calls this alike and gets the report of all, in which only
            ``seconds`` are its own.

    Raises:
        DataError: an empty source, or a sample that asks nothing or whose truth does not fit the task. One that
            cannot be read or answered (``MediaError``, ``DataError``) is in the report's ``failed`` instead.
    """
    total = extent(source, limit)
    asked: dict[int, Sample] = {}
    failed: dict[int, Failure] = {}
    answered: dict[int, Answer | Failure] = {}
    seconds = 0.0
    with Progress(f"eval {task}", total) as progress:
        for number, batch in enumerate(_batches(source, task, total, batch_size, failed)):
            asked |= {index: replace(sample, messages=(), others=()) for index, sample in batch}  # without media
            if ranks is None or number % ranks.count == ranks.rank:
                start = time.perf_counter()
                answers = _answers(bridge, [sample for _, sample in batch], options)
                seconds += time.perf_counter() - start
                answered |= {index: answer for (index, _), answer in zip(batch, answers, strict=True)}
            progress.advance(len(batch))
    rows: dict[int, Row] = {}
    for index, answer in _of_all(answered, ranks).items():
        if isinstance(answer, Failure):
            failed[index] = answer
        else:
            rows[index] = _row(asked[index], answer)
    ordered = tuple(rows[index] for index in sorted(rows))
    flops, note = _flops(bridge, source, sorted(rows), options) if count_flops else (None, "not counted")
    return Report(
        task=task,
        metrics=_scores(ordered, task, parse_facts) if ordered else {},
        rows=ordered,
        failed=tuple(failed[index] for index in sorted(failed)),
        seconds=seconds,
        flops=flops,
        flops_note=note,
        ceilings=ceilings(bridge.recipe),
    )


def question(sample: Sample) -> tuple[Message, ...]:
    """What a bridge is asked: a sample's messages without the assistant's last turn.

    Raises:
        DataError: nothing is left to ask.
    """
    asked = sample.messages[:-1] if sample.messages and sample.messages[-1].role == "assistant" else sample.messages
    if not asked:
        raise DataError(sample.id, "expected a turn before the assistant's, found none")
    return asked


def _batches(
    source: Source, task: Task, total: int, size: int, failed: dict[int, Failure]
) -> Iterator[list[tuple[int, Sample]]]:
    """Samples with their indices, in batches of similar prompt length; what cannot be read goes to ``failed``."""
    for start in range(0, total, _WINDOW * size):
        window = list(readable(source, range(start, min(start + _WINDOW * size, total)), failed))
        for _, sample in window:
            _check_truth(sample, task)
        window.sort(key=lambda pair: _length(pair[1]))
        yield from (window[i : i + size] for i in range(0, len(window), size))


def _length(sample: Sample) -> tuple[int, int]:
    """What a prompt's length goes by: media, then characters."""
    text = sum(len(part) for message in question(sample) for part in message.content if isinstance(part, str))
    return len(sample.media), text


def _check_truth(sample: Sample, task: Task) -> None:
    truth = sample.truth
    if task == "caption":
        if not references(truth):
            raise DataError(sample.id, "expected a caption or references in its truth, found neither")
    elif not truth.get("answers"):
        raise DataError(sample.id, "expected answers in its truth, found none")
    elif task == "pope" and yes_or_no(truth["answers"][0]) is None:
        raise DataError(sample.id, f"expected yes or no as its answer, found {truth['answers'][0]!r}")


def _answers(bridge: Answering, samples: list[Sample], options: GenerationOptions) -> list[Answer | Failure]:
    """An answer or a failure for each sample: a batch that fails is halved until the sample at fault stands alone."""
    try:
        return list(bridge.generate([question(sample) for sample in samples], options))
    except (MediaError, DataError) as error:
        if len(samples) == 1:
            return [Failure(samples[0].id, str(error))]
    half = len(samples) // 2
    return _answers(bridge, samples[:half], options) + _answers(bridge, samples[half:], options)


def _of_all(answered: Mapping[int, Answer | Failure], ranks: "Ranks | None") -> Mapping[int, Answer | Failure]:
    """What all processes have answered."""
    if ranks is None:
        return answered
    own = {index: (isinstance(answer, Failure), asdict(answer)) for index, answer in answered.items()}
    parts = [json.loads(text).items() for text in ranks.texts(json.dumps(own))]
    return {
        int(index): Failure(**fields) if failed else Answer(**fields)
        for index, (failed, fields) in chain.from_iterable(parts)
    }


def _row(sample: Sample, answer: Answer) -> Row:
    return Row(sample.id, answer.text, sample.truth, sample.truth.get("kind") or None, answer.perceptual_tokens)


def _scores(rows: Sequence[Row], task: Task, parse_facts: Parser | None) -> dict[str, Estimate]:
    match task:
        case "caption":
            return caption_scores(rows, parse_facts or _world_parser())
        case "vqa":
            return vqa_scores(rows)
        case "pope":
            return pope_scores(rows)


def _world_parser() -> Parser:
    from mmbridge.data.world.language import parse_facts

    return parse_facts


def _flops(
    bridge: Answering, source: Source, answered: list[int], options: GenerationOptions
) -> tuple[int | None, str]:
    """FLOPs executed for all answered samples, from a batch spread evenly over them, run again outside the clock."""
    if not answered:
        return None, "no sample was answered"
    chosen = answered[:: -(-len(answered) // _COUNTED)]
    samples = [source[index] for index in chosen]
    found = executed_flops(lambda: _answers(bridge, samples, options))
    if found == 0:
        return None, "the bridge ran no operation that torch counts"
    note = f"counted on one batch of {len(chosen)}, spread over the source, and scaled to {len(answered)} samples"
    return round(found * len(answered) / len(chosen)), note
