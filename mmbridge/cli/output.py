"""What verbs print: plain text where it is piped, coloured where a person watches."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmbridge.answer import Answer


def show_answer(media: Sequence[str], question: str | None, answer: "Answer", as_json: bool, named: bool) -> None:
    """One answer: a JSON object, or its text, after the file's name where there are several."""
    if as_json:
        line = {
            "media": list(media),
            "question": question,
            "text": answer.text,
            "perceptual_tokens": answer.perceptual_tokens,
            "kept_tokens": answer.kept_tokens,
            "seconds": round(answer.seconds, 4),
        }
        show_json(line)
    else:
        say(answer.text, ", ".join(media) if named else "")


def stream(pieces: Iterable[str]) -> None:
    """Pieces of one answer as they come, then the end of the line."""
    for piece in pieces:
        print(piece, end="", flush=True)
    print(flush=True)


def show_json(value: Any) -> None:
    """One object on one line."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def say(text: str, name: str = "") -> None:
    """A line of text; the name before it stands out on a terminal."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text

        Console().print(Text.assemble((f"{name}: ", "bold cyan") if name else "", text), soft_wrap=True)
    else:
        print(f"{name}: {text}" if name else text, flush=True)


def show_table(title: str, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Rows under headers, in aligned columns."""
    cells = [[str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*headers, title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
        for row in cells:
            table.add_row(*row)
        Console().print(table, markup=False)
        return
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    if title:
        print(title)
    for row in [list(headers), *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
