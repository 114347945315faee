"""Sites against the hidden states that transformers itself returns, and against the sums that a block is."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmbridge.errors import RecipeError
from mmbridge.llm.model import LanguageModel
from mmbridge.llm.sites import INSIDE, Site, SiteName, read_states
from tests.llm.test_families import ROWS, plain, spliced
from tests.tiny import FAMILIES

Model = Callable[[str], LanguageModel]


def states_at(llm: LanguageModel, names: Sequence[SiteName], side: Literal["left", "right"]) -> dict[Site, Tensor]:
    found = dict[Site, Tensor]()
    read_states(llm, spliced(llm, ROWS, side), names, lambda site, states: found.setdefault(site, states))
    return found


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_those_that_transformers_returns(llm: Model, family: str, side: Literal["left", "right"]) -> None:
    """Input and block outputs; the last of its hidden states has gone through the final norm, ours has not."""
    model = llm(family)
    found = states_at(model, ["input", "block", "final"], side)
    given = plain(ROWS, side)
    del given["labels"]
    if family == "gpt2":  # it does not find the positions of padded rows by itself
        given["position_ids"] = (given["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        expected = model.model(**given, output_hidden_states=True).hidden_states
    depth, real = len(model.layers), given["attention_mask"].bool()
    assert len(expected) == depth + 1
    ours = [found[Site("input", 0)]]
    ours += [found[Site("block", layer)] for layer in range(1, depth)] + [found[Site("final", depth)]]
    for mine, theirs in zip(ours, expected, strict=True):
        assert_close(mine[real], theirs[real], atol=1e-5, rtol=1e-5)
    raw = found[Site("block", depth)]
    if family == "opt":  # projected to the width of its embeddings instead
        assert raw.shape[-1] != expected[-1].shape[-1]
    else:
        assert not torch.allclose(raw[real], expected[-1][real], atol=1e-3)
    assert [*found] == [Site("input", 0), *(Site("block", layer + 1) for layer in range(depth)), Site("final", depth)]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "gpt2"])
def test_a_block_is_the_sum_of_what_its_sites_say(llm: Model, family: str) -> None:
    model = llm(family)
    found = states_at(model, ["input", *INSIDE, "block"], "right")
    before = found[Site("input", 0)]
    for depth in range(1, len(model.layers) + 1):
        at = {name: found[Site(name, depth)] for name in (*INSIDE, "block")}
        assert_close(at["after_attention"], before + at["attention"])
        assert_close(at["block"], at["after_attention"] + at["ffn"])
        before = at["block"]


@pytest.mark.parametrize(
    ("family", "first", "second", "ffn"),
    [
        ("llama", "input_layernorm", "post_attention_layernorm", "mlp"),
        ("gemma2", "input_layernorm", "pre_feedforward_layernorm", "mlp"),
        ("gpt2", "ln_1", "ln_2", "mlp"),
    ],
)
def test_norms_are_those_in_front_of_attention_and_feed_forward(
    llm: Model, family: str, first: str, second: str, ffn: str
) -> None:
    """Computed once more from the block's own modules."""
    model = llm(family)
    found = states_at(model, ["input", *INSIDE, "block"], "right")
    before = found[Site("input", 0)]
    for depth, block in enumerate(model.layers, start=1):
        with torch.no_grad():
            assert_close(found[Site("attention_norm", depth)], block.get_submodule(first)(before))
            normed = block.get_submodule(second)(found[Site("after_attention", depth)])
            assert_close(found[Site("ffn_norm", depth)], normed)
            assert_close(found[Site("ffn", depth)], block.get_submodule(ffn)(normed))
        before = found[Site("block", depth)]


def test_parallel_blocks_have_nothing_between_attention_and_feed_forward(llm: Model) -> None:
    model = llm("phi")
    found = states_at(model, ["input", "attention_norm", "attention", "ffn", "block"], "right")
    before = found[Site("input", 0)]
    for depth in range(1, len(model.layers) + 1):
        at = {name: found[Site(name, depth)] for name in ("attention", "ffn", "block")}
        assert_close(at["block"], before + at["attention"] + at["ffn"])
        before = at["block"]
    with pytest.raises(RecipeError, match="PhiForCausalLM have no after_attention"):
        states_at(model, ["after_attention"], "right")


def test_a_norm_behind_attention_is_not_in_front_of_it(llm: Model) -> None:
    """OPT-350m's blocks norm their sums: nothing is normed in front of attention."""
    model = llm("opt")
    found = states_at(model, ["input", "attention", "after_attention", "ffn_norm", "ffn", "block"], "right")
    at = {name: found[Site(name, 1)] for name in ("attention", "after_attention", "ffn_norm", "ffn", "block")}
    assert_close(at["after_attention"], found[Site("input", 0)] + at["attention"])
    with torch.no_grad():
        assert_close(at["block"], model.layers[0].get_submodule("final_layer_norm")(at["ffn_norm"] + at["ffn"]))
    with pytest.raises(RecipeError, match="have no attention_norm"):
        states_at(model, ["attention_norm"], "right")


def test_nothing_stays_behind(llm: Model) -> None:
    """No hooks, no context, and logits are as before; a reader that fails leaves nothing either."""
    model = llm("llama")
    context = spliced(model, ROWS, "right")
    before = model(context).logits

    def hooks() -> dict[str, int]:
        counts: defaultdict[str, int] = defaultdict(int)
        for name, module in model.model.named_modules():
            counts[name] += len(module._forward_hooks) + len(module._forward_pre_hooks)
        return counts

    then = hooks()

    def fails(_: Site, __: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        read_states(model, context, ["ffn"], fails)
    assert hooks() == then
    assert model.context is None
    assert torch.equal(model(context).logits, before)
