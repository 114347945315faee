"""One HTML file that tells what was measured; it needs no network, no script and nothing beside it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import mmbridge
from mmbridge.alignment.rendering import page_charts, page_tables
from mmbridge.alignment.rendering.comparison import Comparison
from mmbridge.alignment.rendering.markup import escaped, short, tag
from mmbridge.alignment.rendering.page_style import style
from mmbridge.alignment.rendering.palette import colours
from mmbridge.alignment.report import AlignmentReport
from mmbridge.whole_file import write_whole

_EXPLANATION = (
    "A bridge shows images, sounds or other media to a language model that has only ever read text, as perceptual "
    "tokens that stand where words would. This page tells how much alike the model's inner states are for those tokens "
    "and for words, from its input (depth 0) through each of its blocks. Beside a score stand, where there are such, "
    "its control, for instance the same with captions of other pictures, and chance, which is what luck alone gives."
)
_READING = (
    "Shaded bands and brackets are 95 % intervals over samples; dashes are the control, dots are chance. Arrows point "
    "to what is better aligned. A score with a control or chance means something where its interval is clear of them."
)
_SECTIONS: tuple[tuple[str, str, str, Callable[[Comparison], Iterable[str]]], ...] = (
    ("depth", "Over the depth of the LLM", "charts", page_charts.curves),
    ("pairs", "Pair by pair", "charts broad", page_charts.matrices),
    ("spread", "How states spread", "charts", page_charts.histograms),
    ("words", "What the LLM would say", "", page_tables.words),
    ("views", "States in two dimensions", "charts", page_charts.views),
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_NAME = 60


def write_page(reports: Sequence[AlignmentReport], path: Path) -> None:
    """Everything the reports hold, bridges side by side, in ``path``, which is written whole or not at all.

    Raises:
        UserError: as ``Comparison``.
        OSError: it cannot be written; what stood there still does.
    """
    write_whole(path, page(Comparison(reports)))


def page(comparison: Comparison) -> str:
    """The same as text."""
    names = comparison.names
    title = f"Alignment of {short(names[0], _NAME) if len(names) == 1 else f'{len(names)} bridges'}"
    sections = [("found", "What was found", tag("p", escaped(_READING)) + page_tables.summary(comparison))]
    for place, heading, kind, charts in _SECTIONS:
        if drawn := "".join(charts(comparison)):
            sections.append((place, heading, tag("div", drawn, class_=kind)))
    sections.append(("scores", "What the scores are", page_tables.definitions(comparison)))
    if any(report.cost for report in comparison.reports):
        told = tag("p", "Time with a score over that of plain forward passes.")
        sections.append(("cost", "What the scores cost", told + page_tables.costs(comparison)))
    links = " ".join(tag("a", escaped(heading), href=f"#{place}") for place, heading, _ in sections)
    told = "".join(tag("section", tag("h2", escaped(heading)) + body, id=place) for place, heading, body in sections)
    families = {"bridge": len(comparison.reports), "group": len(comparison.groups), "tint": 2}
    return document(title, families, _head(title, comparison) + tag("nav", links) + told)


def _head(title: str, comparison: Comparison) -> str:
    names = comparison.names
    listed = tag("p", ", ".join(map(page_tables.name, names))) if len(names) > 1 else ""
    explained = tag("p", escaped(_EXPLANATION))
    made = tag("p", f"Measured with mmbridge {mmbridge.__version__}.", class_="small")
    return tag("header", tag("h1", escaped(title)) + listed + explained + page_tables.facts(comparison) + made)


def document(title: str, families: Mapping[str, int], body: str) -> str:
    """A whole HTML document.

    Args:
        families: how many colours there are of each name: ``--NAME-0`` is the first of a family.
        body: markup.
    """
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escaped(title)}</title>"
        f"<style>{style({name: colours(count) for name, count in families.items()})}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'
