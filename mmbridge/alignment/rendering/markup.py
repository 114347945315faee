"""Elements of HTML and SVG, and text that is safe in them."""

import html
import re

_NO_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def legible(text: object) -> str:
    """On one line, without what no document or terminal shows as text, such as control characters."""
    return _NO_TEXT.sub("\ufffd", re.sub(r"\s", " ", str(text)))


def short(text: str, most: int) -> str:
    """At most so many characters; an ellipsis in the middle stands for the rest."""
    text = legible(text)
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def spelt(word: str) -> str:
    """A word of an LLM's, without the space before it; one that is all space as a program would write it."""
    return word.strip() or repr(word)


def escaped(text: object) -> str:
    """As content or as the value of an attribute."""
    return html.escape(legible(text))


def tag(name: str, inside: str = "", /, **attributes: object) -> str:
    """An element around what is markup already; ``class_`` is ``class``, and ``stroke_width`` is ``stroke-width``."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"' for key, value in attributes.items() if value != ""
    )
    return f"<{name}{given}>{inside}</{name}>"
