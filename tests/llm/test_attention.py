"""The attention that is put in place of a model's own leaves the model as it was."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from mmbridge.llm.attention import NAME, take_over
from tests.tiny import tiny_llm


@pytest.mark.parametrize("family", ["llama", "qwen3", "opt", "gpt2", "gemma2"])
def test_a_model_gives_the_same_loss_and_text(tmp_path: Path, family: str) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_llm(tmp_path, family))
    before = model.config._attn_implementation
    ids = torch.randint(0, 200, (2, 40), generator=torch.Generator().manual_seed(0))
    outcomes = []
    for _ in range(2):
        plain = model(input_ids=ids, labels=ids).loss.item()
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(input_ids=ids, labels=ids).loss.item()
        outcomes.append((plain, rounded, model.generate(ids[:, :5], max_new_tokens=4, do_sample=False).tolist()))
        taken = take_over(model)
    (plain, rounded, text), (ours, ours_rounded, our_text) = outcomes
    assert ours == pytest.approx(plain, rel=1e-6)
    assert ours_rounded == pytest.approx(rounded, rel=5e-3)
    assert our_text == text
    assert taken == (before == "sdpa")
    assert model.config._attn_implementation == (NAME if taken else before)
