"""Every family against plain transformers: the perceptual tokens are the embeddings of ordinary tokens.

So the model called with those tokens' ids, and labels of −100 wherever nothing is supervised, must give the same.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from mmbridge.context import ForwardContext
from mmbridge.llm.config import GenerationOptions
from mmbridge.llm.model import LanguageModel
from mmbridge.llm.prompt import Placeholder, Prompt
from mmbridge.llm.splice import splice
from tests.tiny import FAMILIES

Model = Callable[[str], LanguageModel]
Row = Sequence[tuple[str, list[int]]]
"""Pieces of a row: ``text`` read by the model, ``said`` supervised, ``medium`` given as perceptual tokens."""

ROWS: tuple[Row, ...] = (
    [("text", [5, 9, 30]), ("medium", [40, 41, 42, 43]), ("text", [7, 8]), ("said", [11, 12, 13])],
    [("medium", [50, 51]), ("text", [6]), ("medium", [60]), ("said", [21, 22]), ("text", [23]), ("said", [24])],
    [("text", list(range(70, 84))), ("said", [31, 32])],
    [("text", [3, 4]), ("medium", []), ("said", [90, 91, 92, 93, 94, 95])],
)


def spliced(llm: LanguageModel, rows: Sequence[Row], side: Literal["left", "right"]) -> ForwardContext:
    prompts, tokens = [], []
    for number, row in enumerate(rows):
        ids: list[int] = []
        supervised: list[bool] = []
        places, media = [], []
        for kind, piece in row:
            if kind == "medium":
                places.append(Placeholder(len(ids), "image"))
                media.append(llm.embed(torch.tensor(piece, dtype=torch.long)))
            ids += [10**6] if kind == "medium" else piece  # an id without embedding: it must never be looked up
            supervised += [False] if kind == "medium" else [kind == "said"] * len(piece)
        prompts.append(Prompt(str(number), tuple(ids), tuple(supervised), tuple(places), ""))
        tokens.append(media)
    return splice(llm.embed, prompts, tokens, side=side, pad_id=llm.pad_id, max_length=llm.max_length)


def plain(rows: Sequence[Row], side: Literal["left", "right"]) -> dict[str, Tensor]:
    """The same rows as ids, mask and labels."""
    ids = [[token for _, piece in row for token in piece] for row in rows]
    labels = [[token if kind == "said" else -100 for kind, piece in row for token in piece] for row in rows]
    longest = max(map(len, ids))

    def padded(values: list[list[int]], fill: int) -> Tensor:
        gaps = [[fill] * (longest - len(row)) for row in values]
        pairs = zip(values, gaps, strict=True)
        return torch.tensor([gap + row if side == "left" else row + gap for row, gap in pairs])

    mask = padded([[1] * len(row) for row in ids], 0)
    return {"input_ids": padded(ids, 1), "attention_mask": mask, "labels": padded(labels, -100)}


def load(folder: Path, **options: Any) -> Any:
    auto: Any = AutoModelForCausalLM
    return auto.from_pretrained(folder, **options).eval()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_and_loss_are_transformers_own(
    family: str, side: Literal["left", "right"], llm: Model, llm_folder: Callable[[str], Path]
) -> None:
    inputs = plain(ROWS, side)
    if side == "left":  # a model takes positions from where it is called, the library's generate from the mask
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        reference = load(llm_folder(family))(**inputs)
        ours = llm(family)(spliced(llm(family), ROWS, side))
    predicts = inputs["labels"][:, 1:] != -100
    torch.testing.assert_close(ours.logits, reference.logits[:, :-1][predicts], atol=2e-5, rtol=1e-5)
    assert ours.targets.tolist() == inputs["labels"][:, 1:][predicts].tolist()
    torch.testing.assert_close(cross_entropy(ours.logits, ours.targets), reference.loss, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_and_beam_text_are_transformers_own(family: str, llm: Model, llm_folder: Callable[[str], Path]) -> None:
    model, tokenizer = llm(family), AutoTokenizer.from_pretrained(llm_folder(family))
    reference, inputs = load(llm_folder(family)), plain(ROWS, "left")
    del inputs["labels"]
    for beams in (1, 3):
        ids = reference.generate(
            **inputs, max_new_tokens=12, num_beams=beams, eos_token_id=model.ends(), pad_token_id=model.pad_id
        )
        expected = tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        given = model.generate(spliced(model, ROWS, "left"), GenerationOptions(max_new_tokens=12, beams=beams))
        assert given == [text.strip() for text in expected]
        assert len(set(given)) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_of_perceptual_tokens_is_transformers_own(
    family: str, llm: Model, llm_folder: Callable[[str], Path]
) -> None:
    model, reference, inputs = llm(family), load(llm_folder(family)), plain(ROWS[:2], "right")
    context = spliced(model, ROWS[:2], "right")
    context.embeds = context.embeds.detach().requires_grad_()
    out = model(context)
    (given,) = torch.autograd.grad(cross_entropy(out.logits, out.targets), context.embeds)
    embeds = reference.get_input_embeddings()(inputs.pop("input_ids")).detach().requires_grad_()
    (expected,) = torch.autograd.grad(reference(inputs_embeds=embeds, **inputs).loss, embeds)
    torch.testing.assert_close(given, expected, atol=1e-6, rtol=1e-4)
    assert given[context.perceptual].norm() > 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_does_not_depend_on_its_batch(family: str, llm: Model) -> None:
    model = llm(family)
    together = model.generate(spliced(model, ROWS, "left"), GenerationOptions(max_new_tokens=8))
    alone = [model.generate(spliced(model, [row], "left"), GenerationOptions(max_new_tokens=8))[0] for row in ROWS]
    assert together == alone


def test_widths_and_blocks_are_read_from_the_model(llm: Model) -> None:
    assert llm("opt").width == 24  # word_embed_proj_dim, not the hidden width of 32
    assert {llm(family).width for family in FAMILIES if family != "opt"} == {32}
    assert all(len(llm(family).layers) == 2 for family in FAMILIES)
    assert llm("gpt2").model.config._attn_implementation == "sdpa"
    assert llm("gemma2").model.config._attn_implementation == "eager"
