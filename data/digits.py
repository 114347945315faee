"""The UCI handwritten digits as pictures to be read out and asked about: real, scanned input that needs no download.

Optical Recognition of Handwritten Digits. E. Alpaydin, C. Kaynak, UCI Machine Learning Repository, 1998; the 1,797
digits of its test set come with scikit-learn as 8×8 counts of ink.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmbridge.data.record import PARTS, Question, Record, Task
from mmbridge.data.sample import Medium
from mmbridge.data.sources import RecordSource
from mmbridge.errors import RecipeError
from mmbridge.llm.templates import TemplateName

SIDE = 96
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PROMPTS = (
    "describe the picture.", "describe the image.", "what is in the picture?", "what does the image show?",
    "write a caption.", "what can you see?",
)  # fmt: skip
CAPTIONS = ("the digit is {}.", "a handwritten {}.", "this is the number {}.", "it shows the digit {}.")
"""The first is the caption, the others are references beside it."""
HELD_OUT = 0.2
"""The share of every digit that is the test split."""


class DigitRecords:
    """The digits of a split: about 1,437 in ``train`` and 360 in ``test``, every digit in the same proportion.

    Raises:
        RecipeError: scikit-learn is not installed.
    """

    def __init__(self, split: Literal["train", "test"]) -> None:
        images, labels = _loaded()
        self._index = _chosen(labels, split)
        self._images, self._labels, self._split = images[self._index], labels[self._index], split
        held = (1, len(_questions(0, 0)), 0, 0)
        self.counts = np.tile(np.array(held, np.int32), (len(self), 1)).reshape(-1, len(PARTS))

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int, /) -> Record:
        number, digit = int(self._index[index]), int(self._labels[index])
        name = f"digit-{number:04d}"
        return Record(
            id=name,
            medium=Medium("image", picture(self._images[index]), name),
            text=CAPTIONS[0].format(WORDS[digit]),
            references=tuple(form.format(WORDS[digit]) for form in CAPTIONS),
            questions=_questions(digit, number),
            split=self._split,
        )


def digits(
    split: Literal["train", "test"],
    task: Task = "all",
    *,
    turns: int = 1,
    together: int = 1,
    template: TemplateName | None = None,
) -> RecordSource:
    """The digits as a source; ``turns``, ``together`` and ``template`` as in ``RecordSource``."""
    records = DigitRecords(split)
    name = f"digits:{split}"
    return RecordSource(
        records, task, PROMPTS, name, counts=records.counts, turns=turns, together=together, template=template
    )


def picture(ink: NDArray[np.float64]) -> Image.Image:
    """8×8 counts of ink (0 to 16) to a light digit on a dark ground, ``SIDE`` × ``SIDE``, RGB."""
    grey = Image.fromarray((ink * (255 / 16)).astype(np.uint8))
    return grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB")


def _loaded() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(1797, 8, 8) ink and (1797,) labels."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        problem = "expected scikit-learn, which carries the digits, found none"
        raise RecipeError("data.mix: digits", problem, "pip install 'mmbridge[digits]'") from None
    bunch = load_digits()
    return bunch.images, bunch.target


def _chosen(labels: NDArray[np.int64], split: Literal["train", "test"]) -> NDArray[np.int64]:
    """Which digits a split has, in the order of the data set."""
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(np.arange(len(labels)), test_size=HELD_OUT, stratify=labels, random_state=0)
    chosen: NDArray[np.int64] = np.sort(train if split == "train" else test)
    return chosen


def _questions(digit: int, number: int) -> tuple[Question, ...]:
    """Every kind once; ``number`` chooses among wordings and what to compare with, not knowing the digit."""
    draw = np.random.default_rng(number)
    other, greater = int(draw.integers(10)), bool(draw.integers(2))
    read = ("what digit is it?", "which number is this?", "read the digit.")[number % 3]
    following = ("what number comes next?", "what number comes after it?")[number % 2]
    compared = f"is it {'greater' if greater else 'less'} than {WORDS[other]}?"
    return (
        Question(read, (WORDS[digit], str(digit)), "read-out"),
        Question("write the number as a numeral.", (str(digit),), "numeral"),
        Question("is it odd or even?", ("odd" if digit % 2 else "even",), "parity"),
        Question("is it greater than five?", (_yes(digit > 5),), "greater"),
        Question("is it less than five?", (_yes(digit < 5),), "less"),
        Question(compared, (_yes(digit > other if greater else digit < other),), "comparison"),
        Question(following, (WORDS[digit + 1], str(digit + 1)), "next"),
    )


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"
