"""Controls: every question beside another's media, and connectors that have learnt nothing."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from mmbridge.connectors.base import Words
from mmbridge.data.sample import Medium, Sample, conversation
from mmbridge.errors import DataError
from mmbridge.evaluation.controls import ShuffledMedia, with_random_connectors


class Listed:
    """A source in memory."""

    name = "a list"

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int, /) -> Sample:
        return self._samples[index]


def about(index: int, *pictures: int) -> Sample:
    """Question ``index`` about pictures given by number, each before its own word."""
    parts = [part for number in pictures for part in (Medium("image", bytes([number])), "and")]
    turns = conversation(("user", [*parts, f"question {index}"]), ("assistant", [f"answer {index}"]))
    return Sample(str(index), turns, {"answers": [f"answer {index}"]})


def shown(sample: Sample) -> list[Any]:
    return [medium.source for medium in sample.media]


def texts(sample: Sample) -> list[str]:
    return [part for message in sample.messages for part in message.content if isinstance(part, str)]


def test_every_sample_keeps_its_words_and_truth_and_gets_anothers_media() -> None:
    samples = [about(i, i) for i in range(20)]
    shuffled = [ShuffledMedia(Listed(samples))[i] for i in range(20)]
    assert [s.truth for s in shuffled] == [s.truth for s in samples]
    assert [texts(s) for s in shuffled] == [texts(s) for s in samples]
    assert all(shown(a) != shown(b) for a, b in zip(shuffled, samples, strict=True))
    assert sorted(map(shown, shuffled)) == sorted(map(shown, samples))  # each picture is used once


def test_two_samples_swap() -> None:
    source = ShuffledMedia(Listed([about(0, 0), about(1, 1)]))
    assert len(source) == 2
    assert [shown(source[0]), shown(source[1])] == [[b"\x01"], [b"\x00"]]


def test_seeds_differ_and_repeat() -> None:
    listed = Listed([about(i, i) for i in range(20)])
    orders = [[shown(ShuffledMedia(listed, seed)[i]) for i in range(20)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_questions_about_one_picture_never_get_it_back() -> None:
    samples = [about(i, i // 5) for i in range(15)]
    source = ShuffledMedia(Listed(samples))
    assert all(shown(source[i]) != shown(samples[i]) for i in range(15))


def test_number_of_media_is_kept_and_none_stays_none() -> None:
    samples = [about(0, 0), about(1, 1, 2), about(2, 3), about(3, 4, 5), about(4)]
    source = ShuffledMedia(Listed(samples))
    assert [len(source[i].media) for i in range(5)] == [1, 2, 1, 2, 0]
    assert shown(source[1]) == [b"\x04", b"\x05"]


def test_without_another_picture_it_is_an_error() -> None:
    source = ShuffledMedia(Listed([about(0, 7), about(1, 7)]))
    with pytest.raises(DataError, match="different media"):
        source[0]


class Linear(nn.Linear):
    """A connector of one layer."""


class ConnectorRecipe:
    """Builds a connector as a recipe's section does."""

    encoders = ("vision",)

    def build(self, facts: Sequence[Any], words: Words, name: str) -> Linear:
        return Linear(facts[0].width, words.width)


class TinyBridge(nn.Module):
    """The parts of a bridge that the control touches."""

    def __init__(self) -> None:
        super().__init__()
        self.recipe = SimpleNamespace(connectors={"image": ConnectorRecipe()})
        vision = nn.Linear(4, 6)
        vision.facts = SimpleNamespace(width=6)  # type: ignore[assignment]
        self.encoders = nn.ModuleDict({"vision": vision})
        self.connectors = nn.ModuleDict({"image": Linear(6, 8)})
        self.llm = nn.Linear(8, 2)
        self.words = Words(8)

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.llm(self.connectors["image"](self.encoders["vision"](inputs)))
        return found


def test_connectors_are_fresh_in_the_twin_alone_and_frozen_parts_shared() -> None:
    bridge, inputs = TinyBridge().to(torch.float64).eval(), torch.randn(3, 4, dtype=torch.float64)
    before, state = bridge(inputs), torch.random.get_rng_state()
    twin: Any = with_random_connectors(cast(Any, bridge), seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(bridge(inputs), before)
    assert not torch.allclose(twin(inputs), before)
    assert twin(inputs).dtype == torch.float64
    assert twin.llm is bridge.llm
    assert twin.encoders is bridge.encoders
    assert not twin.connectors.training
    again: Any = with_random_connectors(cast(Any, bridge), seed=3)
    assert torch.equal(again(inputs), twin(inputs))
