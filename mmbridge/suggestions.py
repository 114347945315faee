"""The nearest valid word to a mistyped one."""

import difflib
from collections.abc import Iterable


def did_you_mean(valid: Iterable[str], found: object) -> str:
    """``did you mean 'mlp'?``, or nothing when no valid word is near."""
    near = difflib.get_close_matches(str(found), list(valid), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else ""


def expected_one_of(valid: Iterable[str], found: object) -> str:
    """``expected one of linear, mlp, found 'mpl'; did you mean 'mlp'?``"""
    words = list(valid)
    hint = did_you_mean(words, found)
    return f"expected {one_of(words)}, found {found!r}" + (f"; {hint}" if hint else "")


def one_of(words: list[str]) -> str:
    """``one of linear, mlp``; a single word stands by itself."""
    return f"one of {', '.join(words)}" if len(words) > 1 else "".join(words) or "nothing"
