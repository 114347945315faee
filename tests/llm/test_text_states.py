"""Texts that stand alone, held against transformers' own hidden states of every family."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from mmbridge.llm.model import LanguageModel
from mmbridge.llm.text_states import opening, text_states
from tests.llm.test_families import load
from tests.tiny import FAMILIES

TEXTS: tuple[list[int], ...] = ([5, 9, 30, 7], [11], [21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32], [])


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_those_that_the_head_reads(
    family: str, llm: Callable[[str], LanguageModel], llm_folder: Callable[[str], Path]
) -> None:
    """Each text alone behind the tokenizer's bos; OPT's are projected to the words' width first."""
    model, theirs = llm(family), load(llm_folder(family))
    first = opening(model)
    special = theirs.config.bos_token_id
    assert first == ((special,) if model.tokenizer("x")["input_ids"][0] == special else ())
    found = text_states(model, TEXTS)
    assert found.values.shape == (4, 12, model.width)
    for text, values, mask in zip(TEXTS, found.values, found.mask, strict=True):
        assert mask.tolist() == [True] * len(text) + [False] * (12 - len(text))
        if not text:
            continue
        ids = torch.tensor([[*first, *text]])
        with torch.no_grad():
            hidden: Any = theirs.get_decoder()(input_ids=ids).last_hidden_state[0]
        assert_close(values[: len(text)], hidden[len(first) :], atol=1e-5, rtol=1e-5)
    for text, values, mean in zip(TEXTS, found.values, found.means(), strict=True):
        assert_close(mean, values[: len(text)].mean(0) if text else torch.zeros(model.width))


def test_a_text_is_not_told_by_its_neighbours(llm: Callable[[str], LanguageModel]) -> None:
    model = llm("llama")
    alone, beside = text_states(model, [TEXTS[0]]), text_states(model, TEXTS)
    assert_close(alone.values[0], beside.values[0, :4])
    assert not beside.values.requires_grad


def test_the_head_runs_as_before_afterwards(llm: Callable[[str], LanguageModel]) -> None:
    model = llm("llama")
    ids = torch.tensor([TEXTS[0]])
    before = model.model(input_ids=ids).logits
    text_states(model, TEXTS)
    assert torch.equal(model.model(input_ids=ids).logits, before)
