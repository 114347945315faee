"""Turned weights compute the same map, only where they gain, and only as long as they are of today."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mmbridge.llm import layout
from mmbridge.llm.config import GenerationOptions, LLMConfig
from mmbridge.llm.layout import TurnedWeights
from mmbridge.llm.model import LanguageModel
from tests.llm.test_families import ROWS, spliced


def maps() -> nn.ModuleDict:
    torch.manual_seed(0)
    made = nn.ModuleDict({"wide": nn.Linear(8, 32), "bare": nn.Linear(8, 16, bias=False), "square": nn.Linear(8, 8)})
    return made.requires_grad_(False)


def turned_in(model: nn.Module, turned: TurnedWeights) -> set[str]:
    with turned.of(model):
        return {name for name, module in model.named_modules() if "forward" in vars(module)}


def test_one_row_and_several_give_what_torch_gives() -> None:
    model, turned = maps(), TurnedWeights()
    for rows in (1, 5):
        inputs = torch.randn(rows, 8)
        expected = {name: module(inputs) for name, module in model.items()}
        with turned.of(model):
            for name, module in model.items():
                assert_close(module(inputs), expected[name])
    assert turned_in(model, turned) == {"wide", "bare"}
    assert not any("forward" in vars(module) for module in model.modules())


def test_what_trains_or_is_of_another_format_is_left_alone() -> None:
    model = maps()
    model["wide"].requires_grad_(True)
    model["bare"].bfloat16()
    assert turned_in(model, TurnedWeights()) == set()


def test_without_the_memory_nothing_is_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "free_memory", lambda device: 100)
    assert turned_in(maps(), TurnedWeights()) == set()


def test_a_weight_that_was_changed_is_turned_anew() -> None:
    model, turned, inputs = maps(), TurnedWeights(), torch.randn(1, 8)
    with turned.of(model):
        model["wide"](inputs)
    model["wide"].weight.mul_(2)  # type: ignore[operator]
    expected = model["wide"](inputs)
    with turned.of(model):
        assert_close(model["wide"](inputs), expected)


def test_a_single_sample_is_decoded_with_them(
    llm_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same text, by way of the copies; a batch goes without."""
    model: LanguageModel = LLMConfig(path=str(llm_folder("llama"))).build()
    used: list[int] = []
    whole = layout._Turned.__call__

    def counted(self: layout._Turned, inputs: torch.Tensor) -> torch.Tensor:
        used.append(inputs.shape[-2])
        return whole(self, inputs)

    monkeypatch.setattr(layout._Turned, "__call__", counted)
    options = GenerationOptions(max_new_tokens=6)
    batch = model.generate(spliced(model, ROWS[:2], "left"), options)
    assert used == []
    assert [model.generate(spliced(model, [row], "left"), options)[0] for row in ROWS[:2]] == batch
    assert used.count(1) > 5
