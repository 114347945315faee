"""The rows that transformers' class is fed with: every text once, whole, supervised where it was, and nothing else."""

from collections import Counter

import pytest
import torch
from random_llava import SHAPES
from rows import Rows, fixed, fixed_length, knapsacks, padded
from torch import Tensor
from twin_batch import PAD, ids, instructions, pictures

SHAPE = SHAPES["tiny"]
TEXTS = instructions(SHAPE, 16)
IMAGES = pictures(SHAPE, TEXTS)


def pieces(passed: dict[str, Tensor]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The token ids and labels of each text of a pass, found by its mask or where positions begin anew."""
    found = []
    for number, (words, labels) in enumerate(zip(passed["input_ids"], passed["labels"], strict=True)):
        if "attention_mask" in passed:
            ends = [int(passed["attention_mask"][number].sum())]
            starts = [0]
        else:
            starts = [int(each) for each in (passed["position_ids"][number] == 0).nonzero()[:, 0]]
            ends = [*starts[1:], len(words)]
        for start, end in zip(starts, ends, strict=True):
            found.append((tuple(words[start:end].tolist()), tuple(labels[start:end].tolist())))
    return [each for each in found if set(each[0]) != {PAD}]


@pytest.mark.parametrize("rows", [padded, fixed, knapsacks])
def test_every_text_is_read_once(rows: Rows) -> None:
    passes = rows(SHAPE, TEXTS, IMAGES, 4)
    expected = []
    for text in TEXTS:
        read = ids(SHAPE, text)
        expected.append((tuple(read), (-100,) * (len(read) - len(text.answer)) + text.answer))
    assert Counter(piece for each in passes for piece in pieces(each)) == Counter(expected)
    supervised = sum(int((each["labels"] != -100).sum()) for each in passes)
    assert supervised == sum(len(text.answer) for text in TEXTS)
    assert sum(len(each["pixel_values"]) for each in passes) == len(IMAGES) == 15


def test_one_length_for_all() -> None:
    """The longest, of 72, fills a row of 128."""
    assert max(len(ids(SHAPE, text)) for text in TEXTS) == 72
    assert fixed_length(SHAPE, TEXTS) == 128
    assert [tuple(each["input_ids"].shape) for each in fixed(SHAPE, TEXTS, IMAGES, 4)] == [(4, 128)] * 4
    assert {each["input_ids"].shape[1] for each in padded(SHAPE, TEXTS, IMAGES, 4)} == {72}


def test_knapsacks_are_as_few_as_they_can_be() -> None:
    passes = knapsacks(SHAPE, TEXTS, IMAGES, 4)
    shapes = [tuple(each["input_ids"].shape) for each in passes]
    assert {length for _, length in shapes} == {256}
    assert sum(rows for rows, _ in shapes) == -(-sum(len(ids(SHAPE, text)) for text in TEXTS) // 256)
    assert max(rows for rows, _ in shapes) == 2


def test_the_length_of_the_small_shape() -> None:
    texts = instructions(SHAPES["small"], 16)
    lengths = torch.tensor([float(len(ids(SHAPES["small"], text))) for text in texts])
    length = fixed_length(SHAPES["small"], texts)
    assert length == 512
    assert 1.8 < length / float(lengths.mean()) < 1.9
