"""The handwritten digits: scikit-learn's own, split fairly, asked about truthfully."""

import sys
from collections import Counter

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmbridge.data.digits import CAPTIONS, WORDS, DigitRecords, digits
from mmbridge.data.media import open_image
from mmbridge.errors import RecipeError


def names(split: str) -> set[str]:
    records = DigitRecords("train" if split == "train" else "test")
    return {records[index].id for index in range(len(records))}


def test_the_split_is_stratified_disjoint_and_whole() -> None:
    assert not names("train") & names("test")
    assert len(names("train") | names("test")) == 1797
    labels = load_digits().target
    test = Counter(int(labels[int(name[-4:])]) for name in names("test"))
    for digit, count in Counter(labels.tolist()).items():
        assert abs(test[digit] - count / 5) <= 1


def test_pictures_show_the_digits_light_on_dark() -> None:
    images = load_digits().images
    records = DigitRecords("test")
    for index in range(0, len(records), 40):
        record = records[index]
        assert record.medium is not None
        picture = open_image(record.medium)
        assert (picture.mode, picture.size) == ("RGB", (96, 96))
        cells = np.asarray(picture, np.float64)[..., 0].reshape(8, 12, 8, 12).mean(axis=(1, 3))
        assert np.corrcoef(cells.ravel(), images[int(record.id[-4:])].ravel())[0, 1] > 0.95


def test_captions_read_the_digit_in_words() -> None:
    labels = load_digits().target
    source = digits("test", "caption")
    assert len(source) == 360
    for index in range(0, 360, 30):
        word = WORDS[labels[int(source[index].id[-4:])]]
        assert source[index].truth["caption"] == f"the digit is {word}."
        assert source[index].truth["references"] == [form.format(word) for form in CAPTIONS]


def test_answers_are_true() -> None:
    """The questions are parsed here anew, against the data set's own labels."""
    labels = load_digits().target
    source = digits("test", "vqa")
    kinds: Counter[str] = Counter()
    for sample in source:
        digit = int(labels[int(sample.id[6:10])])
        question, answer = sample.truth["question"], sample.truth["answers"][0]
        kinds[sample.truth["kind"]] += 1
        match question.rstrip("?.").split():
            case ["is", "it", "odd", "or", "even"]:
                assert answer == ("odd" if digit % 2 else "even")
            case ["is", "it", "greater", "than", word]:
                assert answer == ("yes" if digit > WORDS.index(word) else "no")
            case ["is", "it", "less", "than", word]:
                assert answer == ("yes" if digit < WORDS.index(word) else "no")
            case ["what", "number", "comes", *_]:
                assert answer == WORDS[digit + 1]
            case ["write", *_]:
                assert answer == str(digit)
            case ["what", "digit", *_] | ["which", *_] | ["read", *_]:
                assert answer == WORDS[digit]
            case _:
                pytest.fail(f"a question without a check: {question}")
    assert set(kinds) == {"read-out", "numeral", "parity", "greater", "less", "comparison", "next"}
    assert set(kinds.values()) == {360}


def test_counts_are_those_of_the_records() -> None:
    records = DigitRecords("test")
    assert tuple(records.counts[5]) == records[5].counts()


def test_without_scikit_learn_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(RecipeError, match=r"pip install 'mmbridge\[digits\]'$") as caught:
        digits("train", "caption")
    assert "\n" not in str(caught.value)
