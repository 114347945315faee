"""Arithmetic where its outcome is known in closed form: what is seen and what is said are sums of orthogonal words."""

from itertools import product

import torch
from torch import Tensor
from torch.testing import assert_close

from mmbridge.evaluation.arithmetic import moved, nearest, points

COLOURS, SHAPES = 5, 7


def sums(offset: Tensor) -> Tensor:
    """A colour's axis, a shape's axis and what all have in common, for every pair: (35, 13)."""
    axes = torch.eye(COLOURS + SHAPES + 1)
    pairs = product(range(COLOURS), range(SHAPES))
    made: Tensor = torch.stack([axes[colour] + axes[COLOURS + shape] for colour, shape in pairs]) + offset
    length: Tensor = made.norm(dim=1, keepdim=True)
    return made / length


def test_a_word_is_exchanged_whatever_lies_between_media_and_texts() -> None:
    gap = torch.randn(13, generator=torch.Generator().manual_seed(0))
    media, texts = sums(torch.zeros(13)), sums(3 * gap)
    colours = texts.view(COLOURS, SHAPES, -1).mean(dim=1)
    for colour, shape, other in product(range(COLOURS), range(SHAPES), range(COLOURS)):
        start = media[[colour * SHAPES + shape]]
        scale = 1 / (texts[0] - texts[SHAPES]).norm()  # of texts that differ in a word as media do
        found = moved(start, colours[[colour]], colours[[other]], float(scale))
        assert nearest(found, media).tolist() == [other * SHAPES + shape]


def test_a_step_of_nothing_stays() -> None:
    media, texts = sums(torch.zeros(13)), sums(torch.ones(13))
    assert nearest(moved(media, texts, texts.flip(0), 0.0), media).tolist() == list(range(len(media)))
    assert nearest(moved(media, texts, texts), media).tolist() == list(range(len(media)))


def test_a_step_is_the_closed_form() -> None:
    """From e₁ by e₂ − e₁: (0, 1) at λ = 1, and (1, 1) / √2 at λ = ½."""
    one, two = torch.eye(2).unsqueeze(1)
    assert_close(moved(one, one, two), two)
    assert_close(moved(one, one, two, 0.5), torch.full((1, 2), 0.5**0.5))


def test_media_of_several_directions_stand_at_their_mean() -> None:
    found = points(torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[0, 0, 1], [0, 0, 1]]]))
    assert_close(found, torch.tensor([[0.5**0.5, 0.5**0.5, 0], [0, 0, 1]]))
