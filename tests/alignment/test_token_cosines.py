"""Cosines of tokens against loops over single tokens in NumPy."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmbridge.alignment import clouds, token_cosines
from mmbridge.alignment.chance import token_chance
from mmbridge.alignment.token_cosines import STATISTICS, Statistic, crossed, matched, others, shuffled
from mmbridge.errors import DataError

COUNTS, WORDS = (5, 1, 4, 2), (3, 4, 1, 2)


def sets(counts: tuple[int, ...], longest: int, seed: int, width: int = 6) -> tuple[Tensor, Tensor]:
    """Tokens with NaN for padding, which is not all at the end."""
    drawn = np.random.default_rng(seed)
    mask = np.zeros((len(counts), longest), dtype=bool)
    for row, count in zip(mask, counts, strict=True):
        row[drawn.permutation(longest)[:count]] = True
    values = drawn.normal(size=(*mask.shape, width)) * drawn.uniform(0.1, 50, size=(*mask.shape, 1))
    return torch.from_numpy(np.where(mask[..., None], values, np.nan)), torch.from_numpy(mask)


def looped(tokens: np.ndarray, text: np.ndarray) -> dict[Statistic, float]:
    """Of the real tokens of one pair."""
    cosines = [[float(a @ b / (np.sqrt(a @ a) * np.sqrt(b @ b))) for b in text] for a in tokens]
    every = sorted(value for row in cosines for value in row)
    middle = len(every) // 2
    return {
        "mean": sum(every) / len(every),
        "median": every[middle] if len(every) % 2 else (every[middle - 1] + every[middle]) / 2,
        "max": every[-1],
        "min": every[0],
        "max_mean": sum(max(row) for row in cosines) / len(cosines),
    }


def expected(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> dict[Statistic, Tensor]:
    """(S, R) by statistic."""
    left, right = ([values[mask].numpy() for values, mask in zip(*side, strict=True)] for side in (first, second))
    pairs = [[looped(tokens, text) for text in right] for tokens in left]
    return {each: torch.tensor([[of[each] for of in row] for row in pairs], dtype=torch.float64) for each in STATISTICS}


@pytest.mark.proof("token_cosine", against="loops over single tokens in NumPy, of every pair of samples")
@pytest.mark.parametrize("at_once", [1, 50, 1 << 22])
def test_equals_loops_in_blocks_of_any_size(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (clouds, token_cosines):
        monkeypatch.setattr(module, "AT_ONCE", at_once)
    tokens, text, fewer = sets(COUNTS, 5, 1), sets(WORDS, 4, 2), sets(WORDS[:3], 4, 3)
    truth = expected(tokens, text)
    pairs, along, beside = crossed(*tokens, *text), matched(*tokens, *text), shuffled(*tokens, *text)
    assert tuple(pairs) == tuple(along) == tuple(beside) == STATISTICS
    for each in STATISTICS:
        assert_close(pairs[each], truth[each], atol=1e-12, rtol=0)
        assert_close(along[each], truth[each].diagonal(), atol=1e-12, rtol=0)
        assert_close(beside[each], truth[each][range(4), [3, 0, 1, 2]], atol=1e-12, rtol=0)
        off = [np.mean([float(row[j]) for j in range(4) if j != i]) for i, row in enumerate(truth[each])]
        assert_close(others(pairs[each]), torch.tensor(off, dtype=torch.float64))
    assert_close(crossed(*tokens, *fewer)["median"], expected(tokens, fewer)["median"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_is_read_in_float32(dtype: torch.dtype) -> None:
    (tokens, mask), (text, text_mask) = sets(COUNTS, 5, 1), sets(WORDS, 4, 2)
    tokens, text = tokens.to(dtype), text.to(dtype)
    truth = expected((tokens.double(), mask), (text.double(), text_mask))
    found = crossed(tokens, mask, text, text_mask)
    for each in STATISTICS:
        assert found[each].dtype == torch.float32
        assert_close(found[each].double(), truth[each], atol=1e-6, rtol=0)


def test_only_what_is_asked_for() -> None:
    tokens, text = sets(COUNTS, 5, 1), sets(WORDS, 4, 2)
    assert tuple(matched(*tokens, *text, ("max", "mean"))) == ("max", "mean")
    assert tuple(crossed(*tokens, *text, ("mean",))) == ("mean",)


def test_of_one_direction_all_are_1_and_of_orthogonal_spaces_0() -> None:
    alike = torch.rand(3, 4, 1).add(0.1) * torch.tensor([1.0, 2, -3, 0])
    mask = torch.ones(3, 4, dtype=torch.bool)
    apart = alike * torch.tensor([0, 0, 0, 1.0]) + torch.tensor([0, 0, 0, 1.0])
    for each in STATISTICS:
        assert_close(matched(alike, mask, alike.flip(1), mask)[each], torch.ones(3))
        assert_close(crossed(alike, mask, apart, mask)[each], torch.zeros(3, 3))


def test_a_token_of_no_length_has_no_direction() -> None:
    tokens, mask = torch.tensor([[[0.0, 0], [3, 0]]]), torch.ones(1, 2, dtype=torch.bool)
    found = matched(tokens, mask, tokens[:, 1:], mask[:, 1:])
    assert {each: float(value) for each, value in found.items()} == {
        "mean": 0.5,
        "median": 0.5,
        "max": 1,
        "min": 0,
        "max_mean": 0.5,
    }


def test_what_cannot_be_scored_is_said() -> None:
    (tokens, mask), text = sets(COUNTS, 5, 1), sets(WORDS, 4, 2)
    none = mask.clone()
    none[2] = False
    with pytest.raises(DataError, match=r"perceptual tokens: expected some in every sample, found none in sample 2"):
        matched(tokens, none, *text)
    with pytest.raises(DataError, match=r"text tokens: expected samples to score, found none"):
        crossed(tokens, mask, text[0][:0], text[1][:0])
    with pytest.raises(DataError, match=r"perceptual tokens: expected finite states, found 8 of 20 that are not"):
        crossed(tokens, torch.ones_like(mask), *text)
    for control in (
        lambda: shuffled(tokens[:1], mask[:1], text[0][:1], text[1][:1]),
        lambda: others(torch.ones(1, 1)),
    ):
        with pytest.raises(DataError, match="expected at least 2 samples to shuffle, found 1"):
            control()


def test_chance_grows_with_the_number_of_tokens() -> None:
    """0 ± 1/√D for one pair; Gauss' largest of n is below √(2 log n) of that, and nears it."""
    width, many = 256, 40
    one, more = torch.ones(300, 1, dtype=torch.bool), torch.ones(300, many, dtype=torch.bool)
    alone = token_chance(one, one, width)
    for each in STATISTICS:
        assert abs(float(alone[each].mean())) < 4 / (width * 300) ** 0.5
        assert float(alone[each].std()) == pytest.approx(width**-0.5, rel=0.15)
    found = token_chance(more[:50], more[:50], width, ("max", "mean"))
    bound = (2 * np.log(many**2) / width) ** 0.5
    assert 0.8 * bound < float(found["max"].mean()) < bound
    assert abs(float(found["mean"].mean())) < 0.01
    again = token_chance(more[:50], more[:50], width, ("max",))
    assert torch.equal(found["max"], again["max"])
    assert not torch.equal(found["max"], token_chance(more[:50], more[:50], width, ("max",), seed=1)["max"])
