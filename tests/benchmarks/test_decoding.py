"""The benchmark of decoding runs on the tiny shape and compares equal texts."""

from decoding import TOKENS, measured
from random_llava import SHAPES


def test_all_give_the_same_tokens() -> None:
    found = measured(SHAPES["tiny"], rounds=1)
    assert 0 < found["tokens"] <= TOKENS
    assert set(found["times"]) == {
        "transformers",
        "mmbridge, weights as they are",
        "mmbridge",
        "transformers, again",
    }
