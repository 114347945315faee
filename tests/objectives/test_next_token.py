"""The loss is transformers' own, and its terms are what it is a mean of."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer

from mmbridge.bridge import Bridge
from mmbridge.data.sample import Sample, conversation
from mmbridge.objectives.config import NextTokenConfig
from mmbridge.objectives.next_token import NextToken
from mmbridge.objectives.run import BatchRun
from mmbridge.objectives.weighted import WeightedObjectives
from tests.tiny_bridge import tiny_recipe

TURNS = [[("What do you see?", "a red circle")], [("How many?", "two"), ("Of which colour?", "one red, one blue")]]
SAMPLES = [
    Sample(
        str(index),
        conversation(*(turn for asked, said in turns for turn in (("user", (asked,)), ("assistant", (said,))))),
    )
    for index, turns in enumerate(TURNS)
]


def reference_loss(folder: Path) -> float:
    """transformers: the chat template with its own mask of what the assistant says, labels of -100 elsewhere."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    rows = []
    for turns in TURNS:
        messages = [
            {"role": role, "content": text}
            for pair in turns
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
        rows.append(tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True))
    longest = max(len(row["input_ids"]) for row in rows)
    ids, labels, mask = (torch.full((len(rows), longest), fill) for fill in (0, -100, 0))
    for index, row in enumerate(rows):
        found = torch.tensor(row["input_ids"])
        ids[index, : len(found)], mask[index, : len(found)] = found, 1
        said = torch.tensor(row["assistant_masks"]).bool()
        labels[index, : len(found)][said] = found[said]
    with torch.no_grad():
        return float(model(input_ids=ids, attention_mask=mask, labels=labels).loss)


@pytest.mark.proof("next_token", against="transformers' own loss with labels of -100")
def test_loss_is_that_of_transformers(parts: Path) -> None:
    bridge = Bridge(tiny_recipe(parts))
    batch = bridge.collate()(SAMPLES)
    objective = NextToken()
    with torch.no_grad():
        mean = objective(BatchRun(bridge, batch)) / objective.terms(batch)
    assert_close(float(mean), reference_loss(parts / "llm"), rtol=1e-6, atol=0)


def test_terms_are_the_supervised_tokens(parts: Path) -> None:
    bridge = Bridge(tiny_recipe(parts))
    batch = bridge.collate()(SAMPLES)
    terms = NextToken().terms(batch)
    with torch.no_grad():
        assert terms == len(bridge(batch).targets)
    said = [["a red circle<|im_end|>"], ["two<|im_end|>", "one red, one blue<|im_end|>"]]
    for prompt, texts in zip(batch.prompts, said, strict=True):
        supervised = [token for token, asked in zip(prompt.ids, prompt.supervised, strict=True) if asked]
        text = str(bridge.prompter.tokenizer.decode(supervised))
        assert text.replace("\n", "") == "".join(texts)  # a token may join the newline before to the first letter


def test_objectives_are_weighted_and_named(parts: Path) -> None:
    bridge = Bridge(tiny_recipe(parts))
    module = WeightedObjectives(bridge, [NextTokenConfig(), NextTokenConfig(weight=0.25)])
    batch = bridge.collate()(SAMPLES)
    terms = module.terms([batch])
    with torch.no_grad():
        first, second = module(batch, terms).tolist()
        half = module(batch, [2 * count for count in terms]).tolist()
    assert module.names == ("next_token", "next_token")
    assert second == pytest.approx(first / 4, rel=1e-6)
    assert half[0] == pytest.approx(first / 2, rel=1e-6)
