"""The logit lens of every family against the model's own logits, and of lower blocks against the model cut short."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical
from torch.testing import assert_close
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from mmbridge.alignment import lens as module
from mmbridge.alignment.distributions import entropy
from mmbridge.alignment.lens import Lens
from mmbridge.errors import DataError, RecipeError
from mmbridge.llm.config import LLMConfig
from mmbridge.llm.model import LanguageModel
from tests.tiny import FAMILIES, tiny_llm

IDS = torch.tensor([[5, 9, 30, 7, 40, 41]])


def built(folder: Path, family: str, **overrides: Any) -> LanguageModel:
    if family != "phi3":
        return LLMConfig(path=str(tiny_llm(folder, family, **overrides))).build()
    llama = tiny_llm(folder, "llama")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = AutoConfig.for_model("phi3", vocab_size=480, initializer_range=0.2, pad_token_id=0, **sizes)
    auto: Any = AutoModelForCausalLM
    return LanguageModel(
        auto.from_config(config).eval(), AutoTokenizer.from_pretrained(llama), LLMConfig(path=str(llama))
    )


@torch.no_grad()
def states(llm: LanguageModel) -> tuple[list[Tensor], Tensor]:
    """What each block makes of ``IDS``, (T, H) as it leaves the block, and the model's logits (T, V)."""
    found: list[Tensor] = []

    def take(_: torch.nn.Module, __: object, output: Any) -> None:
        found.append((output if isinstance(output, Tensor) else output[0])[0])

    handles = [block.register_forward_hook(take) for block in llm.layers]
    logits = llm.model(input_ids=IDS).logits[0]
    for handle in handles:
        handle.remove()
    return found, logits


@pytest.mark.proof("entropy", against="the LLM's own logits, of every family, after its last block")
@pytest.mark.parametrize(
    ("family", "overrides"),
    [*((family, {}) for family in FAMILIES), ("phi3", {}), ("opt", {"do_layer_norm_before": True})],
)
def test_the_last_block_says_what_the_model_says(family: str, overrides: dict[str, Any], tmp_path: Path) -> None:
    llm = built(tmp_path, family, **overrides)
    found, logits = states(llm)
    log_p = torch.cat(list(Lens(llm)(found[-1])))
    assert log_p.dtype == torch.float32
    assert_close(log_p, logits.log_softmax(-1), atol=1e-5, rtol=1e-5)
    truth = Categorical(logits=logits).entropy()  # type: ignore[no-untyped-call]
    assert_close(entropy(log_p), truth, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2", "opt", "gpt2"])
def test_a_lower_block_says_what_the_model_says_without_those_above(family: str, tmp_path: Path) -> None:
    llm = built(tmp_path, family)
    (first, _), _ = states(llm)
    log_p = torch.cat(list(Lens(llm)(first)))
    short = LLMConfig(path=str(tmp_path)).build()
    del short.layers[1]
    short.model.config.num_hidden_layers = 1
    with torch.no_grad():
        assert_close(log_p, short.model(input_ids=IDS).logits[0].log_softmax(-1), atol=1e-5, rtol=1e-5)


def test_reads_in_blocks_of_any_size_and_leaves_the_model_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = built(tmp_path, "llama")
    found, before = states(llm)
    lens = Lens(llm)
    (whole,) = lens(found[0].double())
    monkeypatch.setattr(module, "AT_ONCE", 2 * llm.vocabulary + 5)
    pieces = list(lens(found[0]))
    assert [len(piece) for piece in pieces] == [2, 2, 2]
    assert_close(torch.cat(pieces), whole)
    assert not whole.requires_grad
    assert torch.equal(states(llm)[1], before)


def test_soft_caps_act(tmp_path: Path) -> None:
    """Logits close to the cap, which the head alone would exceed."""
    llm = built(tmp_path, "gemma2", final_logit_softcapping=0.5)
    found, logits = states(llm)
    assert 0.45 < logits.abs().max() < 0.5
    assert_close(torch.cat(list(Lens(llm)(found[-1]))), logits.log_softmax(-1), atol=1e-5, rtol=1e-5)


def test_a_model_that_does_something_else_is_refused(tmp_path: Path) -> None:
    llm = built(tmp_path, "llama")
    llm.model.register_forward_hook(lambda _, __, output: output.__setitem__("logits", 2 * output.logits))
    with pytest.raises(RecipeError, match="expected logits by way of LlamaRMSNorm, Linear, found others in Llama"):
        Lens(llm)


def test_states_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    lens = Lens(built(tmp_path, "llama"))
    with pytest.raises(DataError, match="states: expected finite states, found 1 of 2"):
        list(lens(torch.tensor([[1.0] * 32, [torch.inf] * 32])))
    assert [len(each) for each in lens(torch.zeros(0, 32))] == [0]
