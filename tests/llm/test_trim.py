"""The last layer where it is asked, against the whole of it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mmbridge.evaluation.flops import executed_flops
from mmbridge.llm.model import LanguageModel
from mmbridge.llm.trim import only_at, position_wise
from mmbridge.matrices import matrices
from tests.tiny import FAMILIES

Model = Callable[[str], LanguageModel]
ASKED = torch.tensor([3, 4, 9, 17])


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_where_asked_are_those_of_the_whole_layer(llm: Model, family: str) -> None:
    model = llm(family)
    outcomes, flops = [], []
    for trimmed in (False, True):
        embeds = model.embed(torch.arange(20).view(2, 10) + 5).detach().requires_grad_()

        def run(embeds: Any = embeds, trimmed: bool = trimmed) -> Any:
            if not trimmed:
                return model.model(inputs_embeds=embeds, use_cache=False).logits
            with only_at(model.layers[-1], ASKED):
                return model.model(inputs_embeds=embeds, use_cache=False).logits

        logits = run().flatten(0, 1)[ASKED]
        (gradient,) = torch.autograd.grad(logits.square().sum(), embeds)
        outcomes.append((logits, gradient))
        flops.append(executed_flops(run))
    for whole, asked in zip(*outcomes, strict=True):
        assert_close(asked, whole, atol=1e-5, rtol=1e-5)
    spared = sum(matrix.size for module in position_wise(model.layers[-1]) for matrix in matrices(module))
    assert flops[0] - flops[1] == 2 * spared * (20 - len(ASKED))


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("llama", {"mlp", "self_attn.q_proj", "self_attn.o_proj"}),
        ("qwen3", {"mlp", "self_attn.q_proj", "self_attn.o_proj"}),
        ("phi", {"mlp", "self_attn.q_proj", "self_attn.dense"}),
        ("opt", {"fc1", "fc2", "self_attn.q_proj", "self_attn.out_proj"}),
        ("gpt2", {"mlp"}),
    ],
)
def test_what_works_position_by_position(llm: Model, family: str, names: set[str]) -> None:
    layer = llm(family).layers[-1]
    found = {id(module) for module in position_wise(layer)}
    assert {name for name, module in layer.named_modules() if id(module) in found} == names


def test_a_block_in_which_nothing_is_known_to_attend_is_left_alone() -> None:
    assert position_wise(nn.ModuleDict({"mixer": nn.Linear(4, 4), "mlp": nn.Linear(4, 4)})) == []
