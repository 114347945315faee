"""A run from source to report, with a bridge that knows the answers, forgets some, and cannot read some media."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmbridge.answer import Answer
from mmbridge.data.sample import Medium, Message, Sample, conversation
from mmbridge.data.world.language import caption, references
from mmbridge.data.world.scene import sample_scene
from mmbridge.errors import DataError, MediaError
from mmbridge.evaluation.run import Task, evaluate, question
from mmbridge.llm.config import GenerationOptions


@dataclass
class FakeBridge:
    """Answers what ``reply`` says; remembers its batches; refuses a medium named ``broken``."""

    reply: Callable[[str], str]
    work: Callable[[int], object] = lambda batch: None
    batches: list[list[str]] = field(default_factory=list)
    options: GenerationOptions | None = None
    recipe: Any = field(default_factory=lambda: SimpleNamespace(llm=SimpleNamespace(path="org/name"), encoders={}))

    def generate(self, messages: Sequence[Sequence[Message]], options: GenerationOptions) -> list[Answer]:
        for asked in messages:
            assert asked[-1].role == "user"
            for medium in (medium for message in asked for medium in message.media):
                if medium.name == "broken":
                    raise MediaError("broken", "expected an image, found nothing")
        self.options = options
        self.work(len(messages))
        texts = [" ".join(part for m in asked for part in m.content if isinstance(part, str)) for asked in messages]
        self.batches.append(texts)
        return [Answer(self.reply(text), 4, 4, 0.0) for text in texts]


class Listed:
    """A source in memory; an index in ``unreadable`` cannot be read."""

    def __init__(self, samples: Sequence[Sample], unreadable: frozenset[int] = frozenset()) -> None:
        self.name, self._samples, self._unreadable = "a list", samples, unreadable

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int, /) -> Sample:
        if index in self._unreadable:
            raise DataError(f"row {index}", "expected JSON, found nothing")
        return self._samples[index]


def asked(index: int, words: str, truth: dict[str, Any], name: str = "picture") -> Sample:
    medium = Medium("image", b"", name)
    return Sample(f"s{index}", conversation(("user", (medium, words)), ("assistant", ("secret",))), truth)


def questions(count: int) -> list[Sample]:
    """Question i asks for the number i; prompts are of different lengths, out of order."""
    return [
        asked(i, f"{'please ' * (7 * i % 5)}what is {i}?", {"answers": [str(i)], "kind": ["even", "odd"][i % 2]})
        for i in range(count)
    ]


def number(text: str) -> str:
    return text.rstrip("?").split()[-1]


def test_right_answers_score_one_and_come_back_in_the_sources_order() -> None:
    report = evaluate(FakeBridge(number), Listed(questions(23)), "vqa", batch_size=4)
    assert [row.id for row in report.rows] == [f"s{i}" for i in range(23)]
    assert [row.prediction for row in report.rows] == [str(i) for i in range(23)]
    assert (report.n, report.task, report.failed, report.perceptual_tokens) == (23, "vqa", (), 4)
    assert set(report.metrics) == {f"{name}{kind}" for name in ("accuracy", "exact") for kind in ("", "/even", "/odd")}
    assert report.metrics["accuracy"].value == 1
    assert report.ceilings == {}


def test_batches_hold_prompts_of_similar_length_and_never_the_answer() -> None:
    bridge = FakeBridge(number)
    evaluate(bridge, Listed(questions(23)), "vqa", batch_size=4)
    lengths = [len(text) for batch in bridge.batches[:6] for text in batch]
    assert len(lengths) == 23
    assert lengths == sorted(lengths)
    assert "secret" not in str(bridge.batches)


def test_two_runs_are_equal_but_for_the_clock() -> None:
    first, second = (evaluate(FakeBridge(number), Listed(questions(9)), "vqa", batch_size=2) for _ in range(2))
    assert first.metrics == second.metrics
    assert first.rows == second.rows


def test_wrong_answers_of_one_kind_show_in_that_kind() -> None:
    report = evaluate(
        FakeBridge(lambda text: "0" if int(number(text)) % 2 else number(text)), Listed(questions(20)), "vqa"
    )
    assert report.metrics["accuracy/even"].value == 1
    assert report.metrics["accuracy/odd"].value == 0
    assert report.metrics["accuracy"].contains(0.5)


def test_limit_takes_the_first_samples() -> None:
    report = evaluate(FakeBridge(number), Listed(questions(9)), "vqa", limit=5)
    assert [row.id for row in report.rows] == ["s0", "s1", "s2", "s3", "s4"]


def test_options_reach_the_bridge() -> None:
    bridge = FakeBridge(number)
    evaluate(bridge, Listed(questions(2)), "vqa", GenerationOptions(beams=3))
    assert bridge.options == GenerationOptions(beams=3)
    evaluate(bridge, Listed(questions(2)), "vqa")
    assert bridge.options == GenerationOptions()


def test_what_cannot_be_read_is_reported_and_the_rest_is_scored() -> None:
    samples = questions(12)
    samples[5] = asked(5, "what is 5?", {"answers": ["5"]}, name="broken")
    report = evaluate(FakeBridge(number), Listed(samples, frozenset({8})), "vqa", batch_size=4)
    assert report.n == 10
    assert [row.id for row in report.rows] == [f"s{i}" for i in range(12) if i not in (5, 8)]
    assert [(failure.id, failure.error) for failure in report.failed] == [
        ("s5", "broken: expected an image, found nothing"),
        ("a list[8]", "row 8: expected JSON, found nothing"),
    ]
    assert report.metrics["accuracy"].value == 1
    assert "failed: s5" in report.render()


def test_a_run_in_which_everything_fails_has_no_scores() -> None:
    samples = [asked(i, "what?", {"answers": ["x"]}, name="broken") for i in range(3)]
    report = evaluate(FakeBridge(number), Listed(samples), "vqa")
    assert (report.n, report.metrics, len(report.failed), report.flops) == (0, {}, 3, None)


@pytest.mark.parametrize(
    ("task", "truth", "found"),
    [
        ("caption", {"answers": ["x"]}, "expected a caption or references"),
        ("vqa", {"caption": "x"}, "expected answers"),
        ("pope", {"answers": ["maybe"]}, "expected yes or no as its answer, found 'maybe'"),
    ],
)
def test_a_truth_that_does_not_fit_the_task_is_an_error(task: Task, truth: dict[str, Any], found: str) -> None:
    with pytest.raises(DataError, match=f"s0: {found}"):
        evaluate(FakeBridge(number), Listed([asked(0, "what?", truth)]), task)


def test_an_empty_source_and_a_sample_without_a_question_are_errors() -> None:
    with pytest.raises(DataError, match="at least one sample"):
        evaluate(FakeBridge(number), Listed([]), "vqa")
    with pytest.raises(DataError, match="before the assistant's"):
        question(Sample("s", conversation(("assistant", ("hello",)))))


def test_captions_of_the_world_are_scored_by_their_facts() -> None:
    scenes = [sample_scene("test", 0, i) for i in range(12)]
    samples = [
        asked(i, f"describe {i}", {"references": references(scene), "facts": tuple(scene.facts)})
        for i, scene in enumerate(scenes)
    ]
    report = evaluate(FakeBridge(lambda text: caption(scenes[int(number(text))])), Listed(samples), "caption")
    assert report.metrics["fact_f1"].value == 1
    assert report.metrics["exact"].value == 1
    other = evaluate(
        FakeBridge(lambda text: "A dog."), Listed(samples), "caption", parse_facts=lambda text: frozenset()
    )
    assert other.metrics["fact_f1"].value == 0


def test_pope_goes_by_yes_and_no() -> None:
    samples = [asked(i, f"is there {i}", {"answers": [["no", "yes"][i % 2]], "kind": "pope"}) for i in range(10)]
    report = evaluate(FakeBridge(lambda text: "Yes." if int(number(text)) % 2 else "No."), Listed(samples), "pope")
    assert report.metrics["f1"].value == 1
    assert report.metrics["yes_rate"].value == 0.5


def test_flops_are_counted_on_one_batch_and_scaled() -> None:
    weight = torch.randn(8, 16)
    bridge = FakeBridge(number, work=lambda batch: torch.randn(batch, 8) @ weight)
    report = evaluate(bridge, Listed(questions(70)), "vqa", batch_size=4)
    assert report.flops == 70 * (2 * 8 * 16)
    assert "one batch of 24, spread over the source, and scaled to 70 samples" in report.flops_note
    first, last = bridge.batches[-1][0], bridge.batches[-1][-1]
    assert (number(first), number(last)) == ("0", "69")


def test_without_torch_work_flops_are_unknown_and_say_why() -> None:
    report = evaluate(FakeBridge(number), Listed(questions(3)), "vqa")
    assert report.flops is None
    assert "no operation" in report.flops_note
