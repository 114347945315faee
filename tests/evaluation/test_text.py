"""How texts are made comparable."""

import pytest

from mmbridge.evaluation.text import plain, words


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("A red circle.", "a red circle"),
        ("  a  red\ncircle !? ", "a red circle"),
        ("a red circle . ", "a red circle"),
        ("3.5", "3.5"),
        ("", ""),
        ("...", ""),
    ],
)
def test_plain_ignores_case_space_and_final_punctuation(raw: str, expected: str) -> None:
    assert plain(raw) == expected


def test_words_drop_punctuation_and_keep_numbers_and_joined_words_whole() -> None:
    assert words("A red,blue T-shirt: it's 3.5 m (1,000).") == [
        "a",
        "red",
        "blue",
        "t-shirt",
        "it's",
        "3.5",
        "m",
        "1,000",
    ]
