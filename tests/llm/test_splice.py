"""Splicing against concatenation written out token by token."""

import random
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from mmbridge.context import Span
from mmbridge.data.sample import MediumKind
from mmbridge.errors import DataError
from mmbridge.llm.prompt import Placeholder, Prompt
from mmbridge.llm.splice import splice

SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")
KINDS: tuple[MediumKind, ...] = ("image", "audio", "video")
IMAGE_ID = 999


def prompt_of(ids: list[int], name: str = "a", supervised: list[bool] | None = None) -> Prompt:
    places = tuple(Placeholder(place, "image") for place, token in enumerate(ids) if token == IMAGE_ID)
    return Prompt(name, tuple(ids), tuple(supervised or [False] * len(ids)), places, "")


def table(rows: int = 50, width: int = 6) -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(rows, width).requires_grad_(False)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("seed", range(8))
def test_every_row_is_its_pieces_in_order(seed: int, side: Literal["left", "right"]) -> None:
    draw, embed = random.Random(seed), table()
    prompts: list[Prompt] = []
    tokens: list[list[Tensor]] = []
    rows: list[list[tuple[Tensor, int, bool, bool]]] = []  # embedding, id, supervised, perceptual
    spans: list[list[tuple[MediumKind, int]]] = []
    for sample in range(draw.randint(1, 5)):
        ids, said, places, media, row, kinds = [], [], [], [], [], []
        for position in range(draw.randint(1, 12)):
            if draw.random() < 0.3:
                kind, values = draw.choice(KINDS), torch.randn(draw.randint(0, 4), 6)
                places.append(Placeholder(position, kind))
                media.append(values)
                kinds.append((kind, len(values)))
                ids.append(IMAGE_ID)
                said.append(False)
                row += [(value, 7, False, True) for value in values]
            else:
                ids.append(draw.randrange(50))
                said.append(draw.random() < 0.5)
                row.append((embed.weight[ids[-1]], ids[-1], said[-1], False))
        prompts.append(Prompt(str(sample), tuple(ids), tuple(said), tuple(places), ""))
        tokens.append(media)
        rows.append(row)
        spans.append(kinds)
    if not any(rows):
        return
    context = splice(embed, prompts, tokens, side=side, pad_id=7, max_length=100)
    longest = max(map(len, rows))
    assert context.samples == tuple(str(number) for number in range(len(rows)))
    assert context.padding == side
    assert context.embeds.shape == (len(rows), longest, 6)
    for number, row in enumerate(rows):
        first = longest - len(row) if side == "left" else 0
        real = slice(first, first + len(row))
        assert context.mask[number].tolist() == [real.start <= place < real.stop for place in range(longest)]
        for place, (value, token, supervised, perceptual) in enumerate(row, first):
            assert torch.equal(context.embeds[number, place], value)
            assert context.positions[number, place] == place - first
            assert context.ids[number, place] == token
            assert context.supervised[number, place] == supervised
            assert context.perceptual[number, place] == perceptual
        padding = ~context.mask[number]
        assert not context.supervised[number][padding].any()
        assert not context.perceptual[number][padding].any()
        assert (context.ids[number][padding] == 7).all()
        assert [(span.medium, span.stop - span.start) for span in context.spans[number]] == spans[number]
        for span in context.spans[number]:
            assert context.perceptual[number, span.start : span.stop].all()


def test_spans_say_where_media_are() -> None:
    prompts = [prompt_of([IMAGE_ID, 1, 2, IMAGE_ID, 3]), prompt_of([4])]
    tokens = [[torch.ones(2, 6), torch.ones(3, 6)], []]
    context = splice(table(), prompts, tokens, side="left", pad_id=0, max_length=8)
    assert context.spans == ((Span("image", 0, 2), Span("image", 4, 7)), ())
    assert context.positions[1].tolist() == [0] * 8


def test_gradients_reach_each_medium_s_tokens_and_no_embedding() -> None:
    embed, first, second = table(), torch.randn(2, 6, requires_grad=True), torch.randn(1, 6, requires_grad=True)
    prompts = [prompt_of([1, IMAGE_ID]), prompt_of([2, 3, IMAGE_ID, 4])]
    context = splice(embed, prompts, [[first], [second]], side="right", pad_id=0, max_length=9)
    weights = torch.arange(context.embeds.numel()).view_as(context.embeds).float()
    torch.autograd.backward((context.embeds * weights).sum())
    assert first.grad is not None
    assert torch.equal(first.grad, weights[0, 1:3])
    assert second.grad is not None
    assert torch.equal(second.grad, weights[1, 2:3])
    assert embed.weight.grad is None


def test_trainable_embeddings_get_gradients_of_text_only() -> None:
    embed = table().requires_grad_(True)
    context = splice(embed, [prompt_of([1, IMAGE_ID, 2])], [[torch.randn(2, 6)]], side="right", pad_id=0, max_length=9)
    torch.autograd.backward(context.embeds.sum())
    assert embed.weight.grad is not None
    assert embed.weight.grad.sum(1).nonzero().flatten().tolist() == [1, 2]


def test_tokens_take_the_model_s_dtype() -> None:
    tokens = [[torch.randn(2, 6, requires_grad=True)]]
    context = splice(table().bfloat16(), [prompt_of([IMAGE_ID])], tokens, side="right", pad_id=0, max_length=9)
    assert context.embeds.dtype == torch.bfloat16
    assert context.embeds.requires_grad


def test_a_batch_of_text_alone() -> None:
    context = splice(table(), [prompt_of([1, 2]), prompt_of([3])], [[], []], side="right", pad_id=0, max_length=9)
    assert torch.equal(context.embeds, table()(torch.tensor([[1, 2], [3, 0]])))


def test_samples_at_fault_are_named() -> None:
    good, bad = prompt_of([1, IMAGE_ID]), prompt_of([IMAGE_ID, IMAGE_ID], "train/17")
    with pytest.raises(DataError, match=r"^sample train/17: expected 2 media for its placeholders, found 1$"):
        splice(table(), [good, bad], [[torch.ones(1, 6)]] * 2, side="right", pad_id=0, max_length=9)
    with pytest.raises(DataError, match=r"^sample train/17: expected at most 9 positions, found 10; .*max_length"):
        splice(table(), [bad], [[torch.ones(5, 6)] * 2], side="right", pad_id=0, max_length=9)
    splice(table(), [bad], [[torch.ones(5, 6), torch.ones(4, 6)]], side="right", pad_id=0, max_length=9)
