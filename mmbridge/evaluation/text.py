"""How texts are made comparable: whole answers for exact match, words for BLEU and CIDEr."""

import re
import string

_WORD = re.compile(r"\d+(?:[.,]\d+)*|\w+(?:[-'’]\w+)*")


def plain(text: str) -> str:
    """Lower case, single spaces, and no punctuation at the end: ``exact`` compares these."""
    return " ".join(text.lower().split()).rstrip(string.punctuation + " ")


def words(text: str) -> list[str]:
    """Lower-case words and numbers without punctuation.

    Differs from COCO's evaluation, which calls the Penn Treebank tokenizer in Java: hyphenated words and contractions
    stay whole here, and every mark between words is dropped, not only the listed ones.
    """
    return _WORD.findall(text.lower())
