"""What the alignment study finds, in lines and as a page.

``python benchmarks/alignment_study_page.py`` judges the claims and writes the page anew from ``results``.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from alignment_claims import (
    CAPTIONS,
    OUTCOMES,
    PERCEPTUAL,
    PREDICTORS,
    TEXT,
    Floats,
    Variants,
    claims,
    curve,
    lost,
    outcomes,
    overlap,
    predictor,
)
from record import RESULTS

from mmbridge.alignment.rendering.drawing import Line, line_chart, mark
from mmbridge.alignment.rendering.markup import escaped, tag
from mmbridge.alignment.rendering.page import document
from mmbridge.alignment.rendering.page_charts import entry
from mmbridge.alignment.rendering.page_tables import table
from mmbridge.alignment.rendering.palette import MARKS
from mmbridge.evaluation.bootstrap import Estimate
from mmbridge.whole_file import write_whole


def told(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """For the terminal."""
    lines = []
    for place, claim in enumerate(found, start=1):
        lines += [f"({place}) {claim['claim']} {claim['verdict'].capitalize()}."]
        width = max(map(len, claim["figures"]))
        lines += [f"    {name:<{width}}  {spanned(*span)}" for name, span in claim["figures"].items()]
    return lines


def spanned(value: float, low: float, high: float) -> str:
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def write(figures: Mapping[str, Any], path: Path) -> None:
    """The page, whole or not at all."""
    variants = {name: each for name, each in figures.items() if "seed" in name and isinstance(each, dict)}
    count = sum(len(each["bridges"]) for each in variants.values())
    title = f"Implicit multimodal alignment, claim by claim, over {count} bridges"
    charts = [_cone_chart, _weight_chart, _depth_chart, _trajectories, _change_chart]
    sections = [
        _section(place, claim, chart(variants))
        for place, (claim, chart) in enumerate(zip(figures["claims"], charts, strict=True), start=1)
    ]
    colours = max(8, len(variants))
    about = "".join(tag("p", escaped(each)) for each in _about(figures, count))
    found = "".join(tag("li", _judged(each["claim"], each["verdict"])) for each in figures["claims"])
    head = tag("header", tag("h1", escaped(title)) + about + tag("ol", found))
    write_whole(path, document(title, {"bridge": colours, "group": 8, "tint": 2}, head + "".join(sections)))


def _about(figures: Mapping[str, Any], count: int) -> list[str]:
    minutes = figures["seconds"] / 60
    return [
        "A bridge shows pictures to a language model that has only ever read text, as perceptual tokens that stand "
        "where words would. The paper “Implicit Multimodal Alignment” (Shukor and Cord, 2024) claims that a frozen "
        "model treats such tokens more and more like text, and that how much it does tells how good the bridge is. "
        "Here its claims are put to bridges of our own: trained and measured here, on scenes whose truth is known.",
        f"{count} bridges: every variant before training and after each of its stages. Training and measuring took "
        f"{minutes:.0f} minutes. Brackets are 95 % intervals over variants.",
        "A cosine of 1 is one direction, 0 two that have nothing to do with each other. Depth 0 is the language "
        "model's input, depth l what its block l makes. IMA is the cosine of the mean perceptual token with the mean "
        "state of the caption's words: of all pairs of a picture and a caption, or of matched ones.",
    ]


def _judged(claim: str, verdict: str) -> str:
    return f"{escaped(claim)} {tag('strong', escaped(verdict.capitalize()))}."


def _section(place: int, claim: Mapping[str, Any], chart: str) -> str:
    heading = tag("h2", escaped(f"{place}. {claim['claim']}"))
    verdict = tag("p", tag("strong", escaped(claim["verdict"].capitalize() + ".")) + " " + escaped(claim["rule"]))
    if "among finished bridges" in claim:
        tables = tag("h3", "Over all bridges") + _correlations(claim["figures"])
        tables += tag("h3", "Among finished bridges") + _correlations(claim["among finished bridges"])
    else:
        rows = [(escaped(each), spanned(*span)) for each, span in claim["figures"].items()]
        tables = table(("figure", "value [95 % interval]"), rows)
    drawn = tag("div", chart, class_="charts")
    return tag("section", heading + verdict + tag("p", escaped(claim["told"])) + drawn + tables)


def _correlations(figures: Mapping[str, Sequence[float]]) -> str:
    """What tells, downwards; what it tells, across."""
    known = [result for result in OUTCOMES if f"{next(iter(PREDICTORS))} ~ {result}" in figures]
    rows = [[escaped(name), *(spanned(*figures[f"{name} ~ {result}"]) for result in known)] for name in PREDICTORS]
    return table(("Spearman's correlation with", *known), rows)


def _band(rows: Iterable[Floats]) -> list[Estimate]:
    """The mean at each depth; the band goes from the lowest to the highest."""
    stack = np.array([*rows])
    return [Estimate(*map(float, each)) for each in zip(stack.mean(0), stack.min(0), stack.max(0), strict=True)]


def _chart(
    lines: Mapping[str, tuple[Sequence[float], Sequence[Estimate]]], across: str, up: str, whole: bool, family: str
) -> str:
    drawn = [
        Line(name, f"var(--{family}-{place})", MARKS[place % len(MARKS)], places, values)
        for place, (name, (places, values)) in enumerate(lines.items())
    ]
    legend = "".join(entry(line.colour, mark(line.mark, 13, 6, 4), tag("span", escaped(line.name))) for line in drawn)
    chart = line_chart(drawn, [], across=across, up=up, label=f"{up} over {across}", whole=whole)
    return tag("figure", chart + tag("ul", legend, class_="legend"))


def _finished(variants: Variants) -> list[Mapping[str, Any]]:
    return [list(each["bridges"].values())[-1] for each in variants.values()]


def _over_depth(rows: Mapping[str, Iterable[Floats]], up: str, first: int = 0) -> str:
    bands = {name: _band(each) for name, each in rows.items()}
    lines = {name: (range(first, first + len(band)), band) for name, band in bands.items()}
    return _chart(lines, "depth (bands: from the lowest to the highest bridge)", up, whole=True, family="group")


def _cone_chart(variants: Variants) -> str:
    last = _finished(variants)
    rows = {
        "perceptual tokens of different samples": [curve(each, "cone", PERCEPTUAL) for each in last],
        "texts of different samples": [curve(each, "cone", TEXT) for each in last],
        "across, different samples": [curve(each, "ima", PERCEPTUAL, TEXT, part="control") for each in last],
    }
    return _over_depth(rows, "cosine")


def _weight_chart(variants: Variants) -> str:
    found = [overlap(each) for each in variants.values()]
    rows = {
        "perceptual tokens and text": [np.array(each["values"]) for each in found],
        "the same weights, norms dealt anew": [np.array(each["control"]) for each in found],
        "chance": [np.full(len(each["values"]), each["chance"]) for each in found],
    }
    return _over_depth(rows, "overlap (IoU)", first=1)


def _depth_chart(variants: Variants) -> str:
    steps = [*next(iter(variants.values()))["bridges"]]
    rows = {
        f"{step} steps": [curve(each["bridges"][step], "ima_matched", PERCEPTUAL, TEXT) for each in variants.values()]
        for step in steps
    }
    return _over_depth(rows, "IMA, matched pairs")


def _trajectories(variants: Variants) -> str:
    lines, (task, metric) = {}, OUTCOMES[_captions(variants)]
    for name, each in variants.items():
        bridges = [*each["bridges"].values()]
        spans = [Estimate(*bridge["scores"][task][metric]) for bridge in bridges]
        lines[name] = [predictor(bridge, "IMA, all pairs") for bridge in bridges], spans
    across = "IMA, all pairs (a line is a variant, from untrained on)"
    return _chart(lines, across, _captions(variants), False, "bridge")


def _captions(variants: Variants) -> str:
    """How captions are judged."""
    known = outcomes([*variants.values()])
    return next(each for each in CAPTIONS if each in known)


def _change_chart(variants: Variants) -> str:
    last = _finished(variants)
    sides = {"perceptual tokens": PERCEPTUAL, "text": TEXT}
    change = {name: [curve(each, "consecutive_1", side) for each in last] for name, side in sides.items()}
    passed = {
        name: [lost(each, side) for each in variants.values()]
        for name, side in {"perceptual tokens pass it by": PERCEPTUAL, "all others pass it by": TEXT}.items()
    }
    return _over_depth(change, "cosine with the block before", first=1) + _over_depth(
        passed, f"lost: {_captions(variants)}", first=1
    )


def main() -> None:
    file = RESULTS / "alignment_study.json"
    record = json.loads(file.read_text())
    variants = {name: each for name, each in record["figures"].items() if "seed " in name}
    record["figures"]["claims"] = claims(variants)
    write_whole(file, json.dumps(record, indent=1) + "\n")
    write(record["figures"], RESULTS / "alignment_study.html")
    print("\n".join(told(record["figures"]["claims"])))


if __name__ == "__main__":
    main()
