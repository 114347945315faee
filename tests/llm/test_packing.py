"""Packed rows against transformers reading every sample by itself: the same losses, the same gradients."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from mmbridge.llm import packing
from mmbridge.llm.attention import TreeAttention
from mmbridge.llm.config import LLMConfig
from mmbridge.llm.kernel import attend
from mmbridge.llm.model import LanguageModel
from mmbridge.llm.packing import Packing
from mmbridge.llm.prompt import Placeholder, Prompt
from tests.tiny import FAMILIES, tiny_llm

PACKED = [family for family in FAMILIES if family != "gemma2"]  # its soft caps have no fused kernel

OPENING = tuple(range(100, 110))
"""What every sample but one begins with."""

SAMPLES: tuple[tuple[list[int], int | None, list[int], list[int]], ...] = (
    # text, which medium, text, what is said
    ([*OPENING, 5], 0, [6, 7], [11, 12, 13]),
    ([*OPENING, 5], 0, [6, 7], [11, 14]),
    ([*OPENING, 5], 0, [6, 7], [15, 11, 12, 13]),
    ([*OPENING], 1, [8, 9], [21]),
    ([*OPENING], 1, [8], [22, 23, 24]),
    ([*OPENING], 1, [], [25, 26]),
    ([30, 31], 2, [32], [33, 34]),
    ([*OPENING, 40], None, [41, 42], [43]),
)
MEDIA = ([50, 51, 52, 53], [60, 61], [70, 71, 72])
"""Media stand for the embeddings of these tokens, so that transformers can read the same."""


@pytest.fixture(autouse=True)
def _calls_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packing.CALL, "cpu", 0)


@pytest.fixture(params=PACKED)
def llm(request: pytest.FixtureRequest, llm_folder: Callable[[str], Path]) -> LanguageModel:
    """One of its own for every test, ready for training, with a long constant beginning."""
    folder = llm_folder(request.param)
    model = LLMConfig(path=str(folder)).build()
    model.prompter.__dict__["opening"] = OPENING
    model.packing = Packing(model)
    return model


def prompts() -> list[Prompt]:
    made = []
    for number, (before, medium, after, said) in enumerate(SAMPLES):
        ids = [*before, *([0] if medium is not None else []), *after, *said]
        places = () if medium is None else (Placeholder(len(before), "image"),)
        supervised = (False,) * (len(ids) - len(said)) + (True,) * len(said)
        made.append(Prompt(str(number), tuple(ids), supervised, places, ""))
    return made


def ours(llm: LanguageModel, media: Sequence[Tensor]) -> tuple[Tensor, Tensor, Any]:
    """Logits and targets sample by sample, and the context."""
    tokens = [[] if medium is None else [media[medium]] for _, medium, _, _ in SAMPLES]
    numbers = [[] if medium is None else [medium] for _, medium, _, _ in SAMPLES]
    context = llm.read(prompts(), tokens, numbers)
    output = llm(context)
    return output.logits, output.targets, context


def theirs(model: Any, media: Sequence[Tensor]) -> list[Tensor]:
    """Logits of each sample's supervised tokens."""
    table, logits = model.get_input_embeddings(), []
    for before, medium, after, said in SAMPLES:
        pieces = [table(torch.tensor(before)), *([] if medium is None else [media[medium]])]
        pieces.append(table(torch.tensor([*after, *said])))
        found = model(inputs_embeds=torch.cat(pieces)[None], use_cache=False).logits[0]
        logits.append(found[-len(said) - 1 : -1])
    return logits


def embedded(llm: LanguageModel) -> list[Tensor]:
    return [llm.embed(torch.tensor(ids)).detach().requires_grad_() for ids in MEDIA]


def test_losses_and_gradients_are_transformers_own(llm: LanguageModel) -> None:
    auto: Any = AutoModelForCausalLM
    reference = auto.from_pretrained(llm.config.path).eval()
    media, same = embedded(llm), embedded(llm)
    logits, targets, context = ours(llm, media)
    expected = torch.cat(theirs(reference, same))
    assert [tree.members for tree in context.trees] == [(0, 1, 2), (3, 4, 5), (6,), (7,)]
    assert [tree.constant for tree in context.trees] == [10, 10, 0, 10]
    assert context.embeds.shape[:2] == (1, 1 + 4 + 2 + 2 + 1 + 3 + 2 + 2 + 1 + 2 + 1 + 2 + 3 + 1 + 1 + 3)
    assert targets.tolist() == [token for *_, said in SAMPLES for token in said]
    assert_close(logits, expected, atol=2e-5, rtol=1e-5)
    loss, reference_loss = (cross_entropy(each, targets, reduction="sum") for each in (logits, expected))
    assert loss.item() == pytest.approx(reference_loss.item(), rel=1e-5)
    for given, known in zip(torch.autograd.grad(loss, media), torch.autograd.grad(reference_loss, same), strict=True):
        assert (given - known).norm() <= 1e-5 * known.norm()


def test_nothing_is_read_across_samples(llm: LanguageModel) -> None:
    """Another medium, or another word of one sample, changes the logits of that medium's samples alone."""
    media = [each.detach() for each in embedded(llm)]
    with torch.no_grad():
        before, *_ = ours(llm, media)
        media[1] = media[1] + 1
        after, *_ = ours(llm, media)
    changed = torch.split((before != after).any(1), [len(said) for *_, said in SAMPLES])
    assert [bool(each.any()) for each in changed] == [medium == 1 for _, medium, _, _ in SAMPLES]


def test_the_context_says_where_everything_stands(llm: LanguageModel) -> None:
    media = embedded(llm)
    _, _, context = ours(llm, media)
    for (_, medium, _, said), spans in zip(SAMPLES, context.spans, strict=True):
        if medium is not None:
            (span,) = spans
            assert torch.equal(context.embeds[0, span.start : span.stop], media[medium])
            assert context.perceptual[0, span.start : span.stop].all()
        assert said
    assert context.perceptual.sum() == sum(map(len, MEDIA))
    assert context.mask.all()
    assert context.samples == tuple(str(number) for number in range(len(SAMPLES)))


def test_rows_of_nearly_one_length_are_padded(llm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row a sample and one call for all of them, where packing would spare less than its calls take."""
    rows = [(3,) * length for length in (9, 9, 8)]
    same = [Prompt("s", ids, (False,) * (len(ids) - 1) + (True,), (), "") for ids in rows]
    assert llm.read(same, [[]] * 3, [[]] * 3).trees
    monkeypatch.setitem(packing.CALL, "cpu", 1e7)
    llm.packing = Packing(llm)
    assert not llm.read(same, [[]] * 3, [[]] * 3).trees


def test_media_nobody_reads_still_get_a_gradient(llm: LanguageModel) -> None:
    """An image behind the last word that is learnt: its tokens stand nowhere, and their gradient is zero."""
    values = embedded(llm)[0]
    prompt = Prompt("s", (3, 4, 5, 0, 6), (False, True, False, False, False), (Placeholder(3, "image"),), "")
    context = llm.read([prompt], [[values]], [[0]])
    assert context.ids.tolist() == [[3]]
    output = llm(context)
    (gradient,) = torch.autograd.grad(cross_entropy(output.logits, output.targets), values)
    assert not gradient.any()


@pytest.mark.parametrize("family", ["gemma2"])
def test_a_model_with_another_attention_reads_padded_rows(family: str, llm_folder: Callable[[str], Path]) -> None:
    model = LLMConfig(path=str(llm_folder(family))).build()
    model.packing = Packing(model)
    assert not model.packing.possible
    media = embedded(model)
    tokens = [[] if medium is None else [media[medium]] for _, medium, _, _ in SAMPLES]
    assert not model.read(prompts(), tokens, [[0] * len(each) for each in tokens]).trees


def test_a_model_that_does_not_keep_samples_apart_is_found_out(
    llm_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(_: Any, module: Any, query: Tensor, key: Tensor, value: Tensor, **others: Any) -> Tensor:
        return attend(module, query, key, value, None, **others)

    monkeypatch.setattr(TreeAttention, "__call__", careless)
    model = LLMConfig(path=str(llm_folder("llama"))).build()
    assert not Packing(model).possible


def test_nothing_is_constant_while_the_model_trains(llm_folder: Callable[[str], Path]) -> None:
    model = LLMConfig(path=str(llm_folder("llama"))).build()
    model.prompter.__dict__["opening"] = OPENING
    next(model.layers.parameters()).requires_grad_(True)
    assert Packing(model).constant == ()


def test_samples_beyond_a_sliding_window_are_padded(tmp_path: Path) -> None:
    model = LLMConfig(path=str(tiny_llm(tmp_path, "mistral", sliding_window=8))).build()
    model.packing = Packing(model)
    assert model.packing.possible
    lengths = (9, 3), (10, 3)  # the last token is predicted and not read
    packed = []
    for pair in lengths:
        made = [Prompt("s", (4,) * length, (False,) * (length - 1) + (True,), (), "") for length in pair]
        packed.append(bool(model.read(made, [[], []], [[], []]).trees))
    assert packed == [True, False]
