"""What the alignment study finds of each claim, in figures, in lines and as a page.

Every verdict follows from a rule that stands beside it. Intervals are percentiles of 2,000 resamples of whole variants
(an encoder, a connector and a seed, with all its bridges), for bridges of one variant are not independent.

``python benchmarks/alignment_study_page.py`` judges the claims and writes the page anew from ``results``.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import RESULTS
from scipy.stats import spearmanr

from mmbridge.alignment.rendering.drawing import Line, line_chart, mark
from mmbridge.alignment.rendering.markup import escaped, tag
from mmbridge.alignment.rendering.page import document
from mmbridge.alignment.rendering.page_charts import entry
from mmbridge.alignment.rendering.page_tables import table
from mmbridge.alignment.rendering.palette import MARKS
from mmbridge.evaluation.bootstrap import Estimate
from mmbridge.whole_file import write_whole

Variants = Mapping[str, Mapping[str, Any]]
Span = tuple[float, float, float]
Floats = NDArray[np.float64]

PREDICTORS: Mapping[str, tuple[str, float]] = {
    "IMA, all pairs": ("ima", 1),
    "IMA, all pairs, perceptual tokens at the input": ("ima_input", 1),
    "IMA, matched pairs": ("ima_matched", 1),
    "IMA, matched pairs, perceptual tokens at the input": ("ima_input_matched", 1),
    "IMA, matched less other pairs": ("margin", 1),
    "IMA, centred, matched pairs": ("ima_centred_matched", 1),
    "mutual nearest neighbours": ("mutual_knn", 1),
    "CKA": ("cka", 1),
    "modality gap, sign turned": ("gap", -1),
}
"""What may tell how good a bridge is, and the curve whose mean over depth it is."""
OUTCOMES: Mapping[str, tuple[str, str]] = {
    "captions, fact-F1": ("caption", "fact_f1"),
    "questions, accuracy": ("vqa", "accuracy"),
    "existence (POPE), accuracy": ("pope", "accuracy"),
    "hallucinated facts (CHAIR-i)": ("caption", "chair_i"),
}


def curve(bridge: Mapping[str, Any], score: str, *of: str, part: str = "values") -> Floats:
    """(L,) of a measured bridge."""
    (found,) = [each for each in bridge["curves"] if (each["score"], tuple(each["of"])) == (score, of)]
    return np.array([np.nan if each[0] is None else each[0] for each in found[part]], dtype=np.float64)


def predictor(bridge: Mapping[str, Any], name: str) -> float:
    score, sign = PREDICTORS[name]
    if score == "margin":
        matched = curve(bridge, "ima_matched", "image", "text")
        return float((matched - curve(bridge, "ima_matched", "image", "text", part="control")).mean())
    return sign * float(curve(bridge, score, "image", "text").mean())


def outcome(bridge: Mapping[str, Any], name: str) -> float:
    """A bridge that states no fact at all hallucinates none, which says nothing: NaN."""
    task, metric = OUTCOMES[name]
    value = float(bridge["scores"][task][metric][0])
    silent = metric == "chair_i" and value == 0 == bridge["scores"][task]["fact_f1"][0]
    return float("nan") if silent else value


def resampled(groups: Sequence[Any], score: Callable[[Sequence[Any]], float], draws: int = 2000) -> Span:
    """A score of groups, and its interval by drawing groups anew."""
    random = np.random.default_rng(0)
    drawn = [score([groups[each] for each in random.integers(len(groups), size=len(groups))]) for _ in range(draws)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5]) if np.isfinite(drawn).any() else (np.nan, np.nan)
    return score(groups), float(low), float(high)


def correlation(variants: Sequence[Sequence[tuple[float, float]]]) -> float:
    """Spearman's, over all pairs of all variants; nothing where one side does not vary."""
    pairs = np.array([pair for pair in chain(*variants) if np.isfinite(pair).all()])
    if len(pairs) < 3 or np.ptp(pairs[:, 0]) == 0 or np.ptp(pairs[:, 1]) == 0:
        return float("nan")
    return float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic)


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def claims(variants: Variants) -> list[dict[str, Any]]:
    """Each claim, the rule it is judged by, the verdict and the figures."""
    every = [*variants.values()]
    last = [list(each["bridges"].values())[-1] for each in every]
    return [_cones(last), _weights(every), _rises(every, last), _predicts(every), _slow(every, last)]


def _cones(last: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    inside = {side: [float(curve(each, "cone", side).mean()) for each in last] for side in ("image", "text")}
    across = [float(curve(each, "ima", "image", "text", part="control").mean()) for each in last]
    gaps = {side: resampled([*zip(cones, across, strict=True)], lambda rows: mean([a - b for a, b in rows]))
            for side, cones in inside.items()}  # fmt: skip
    holds = sum(min(a, b) > c for a, b, c in zip(*inside.values(), across, strict=True))
    return {
        "claim": "Perceptual tokens and text live in separate narrow cones.",
        "rule": "Reproduces where cosines within each side are above those across, in every finished bridge.",
        "verdict": _verdict(holds, len(last)),
        "figures": {
            "cosine among perceptual tokens of different images": resampled(inside["image"], mean),
            "cosine among texts of different images": resampled(inside["text"], mean),
            "cosine across the two, different images": resampled(across, mean),
            "perceptual above across": gaps["image"],
            "text above across": gaps["text"],
        },
        "told": f"In {holds} of {len(last)} finished bridges both cones are narrower than what joins them.",
    }


def _weights(every: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = [each for one in every for each in one["in depth"]["iou"] if set(each["of"]) == {"image", "text"}]
    above = [each["mean"] - each["chance"] for each in found]
    beyond = [each["mean"] - mean(each["control"]) for each in found]
    holds = sum(a > 0 and b > 0 for a, b in zip(above, beyond, strict=True))
    return {
        "claim": "Perceptual tokens and text activate similar weights.",
        "rule": "Reproduces where the overlap is above chance and above that of the same |W| with norms dealt anew.",
        "verdict": _verdict(holds, len(found)),
        "figures": {
            "overlap (IoU) of the half of the weights that each activates": resampled([e["mean"] for e in found], mean),
            "chance": resampled([each["chance"] for each in found], mean),
            "above chance": resampled(above, mean),
            "above what |W| alone brings": resampled(beyond, mean),
        },
        "told": "Chance is of masks that know nothing of each other; the control keeps the magnitudes of the weights, "
        "which both masks share whatever they are fed.",
    }


def _rises(every: Sequence[Mapping[str, Any]], last: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def over_depth(score: str) -> list[float]:
        curves = [curve(each, score, "image", "text") for each in last]
        return [float(spearmanr(np.arange(len(each)), each).statistic) for each in curves]

    def over_training(name: str) -> list[float]:
        rows = [[predictor(bridge, name) for bridge in each["bridges"].values()] for each in every]
        return [float(spearmanr(np.arange(len(row)), row).statistic) for row in rows]

    figures = {
        "with depth: IMA, all pairs": resampled(over_depth("ima"), mean),
        "with depth: IMA, matched pairs": resampled(over_depth("ima_matched"), mean),
        "with training: IMA, all pairs": resampled(over_training("IMA, all pairs"), mean),
        "with training: IMA, matched pairs": resampled(over_training("IMA, matched pairs"), mean),
        "with training: IMA, matched less other pairs": resampled(over_training("IMA, matched less other pairs"), mean),
    }
    holds = sum(figures[name][1] > 0 for name in figures)
    return {
        "claim": "Alignment rises with depth and with training.",
        "rule": "Spearman's correlation within each variant, their mean; reproduces where all intervals are above 0.",
        "verdict": _verdict(holds, len(figures)),
        "figures": figures,
        "told": "Depth counts from the LLM's input to its last block, training from the untrained connector on.",
    }


def _predicts(every: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    figures, final = {}, {}
    for name in PREDICTORS:
        for result in OUTCOMES:
            rows = [[(predictor(b, name), outcome(b, result)) for b in each["bridges"].values()] for each in every]
            figures[f"{name} ~ {result}"] = resampled(rows, correlation)
            final[f"{name} ~ {result}"] = resampled([row[-1:] for row in rows], correlation)
    task = figures["IMA, all pairs ~ captions, fact-F1"], figures["IMA, all pairs ~ hallucinated facts (CHAIR-i)"]
    holds = (task[0][1] > 0) + (task[1][2] < 0)
    return {
        "claim": "The score tells task accuracy, and, with the opposite sign, hallucination.",
        "rule": "Spearman's correlation over all bridges. Reproduces where that of IMA (all pairs, as published) with "
        "fact-F1 is above 0 and that with CHAIR-i below 0, intervals included.",
        "verdict": _verdict(holds, 2),
        "figures": figures,
        "among finished bridges": final,
        "told": "Over all bridges training time moves both sides; among finished ones encoder and connector alone do. "
        "Bridges that state no fact are left out of what is held against CHAIR-i.",
    }


def _slow(every: Sequence[Mapping[str, Any]], last: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    change = {side: [float(curve(each, "consecutive_1", side).mean()) for each in last] for side in ("image", "text")}
    norms = {side: [float(curve(each, "norm", side).mean()) for each in last] for side in ("image", "text")}

    def cost(side: str) -> list[float]:
        return [
            mean([one["in depth"]["whole"][0] - each[0] for each in one["in depth"]["skipped"][side].values()])
            for one in every
        ]

    slower = resampled([a - b for a, b in zip(*change.values(), strict=True)], mean)
    cheaper = resampled([a - b for a, b in zip(cost("text"), cost("perceptual"), strict=True)], mean)
    return {
        "claim": "Perceptual tokens change slowly from block to block, so that computation on them can be skipped.",
        "rule": "Reproduces where they change less than text does, and where captions lose less by passing perceptual "
        "tokens by one block than by passing text by; intervals above 0.",
        "verdict": _verdict((slower[1] > 0) + (cheaper[1] > 0), 2),
        "figures": {
            "cosine with the block before, perceptual tokens": resampled(change["image"], mean),
            "the same, text": resampled(change["text"], mean),
            "perceptual above text": slower,
            "norm of perceptual tokens over that of text": resampled(
                [a / b for a, b in zip(norms["image"], norms["text"], strict=True)], mean
            ),
            "fact-F1 lost where perceptual tokens pass one block by": resampled(cost("perceptual"), mean),
            "fact-F1 lost where all other tokens do": resampled(cost("text"), mean),
            "what passing text by costs more": cheaper,
        },
        "told": "Tokens that pass a block by leave with what they came with; the mean is over the blocks.",
    }


def _verdict(holds: int, of: int) -> str:
    return "reproduces" if holds == of else "does not reproduce" if holds == 0 else "reproduces in part"


def told(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """For the terminal."""
    lines = []
    for place, claim in enumerate(found, start=1):
        lines += [f"({place}) {claim['claim']} {claim['verdict'].capitalize()}."]
        lines += [f"    {name:<75} {spanned(*span)}" for name, span in claim["figures"].items()]
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
    rows = [[escaped(name), *(spanned(*figures[f"{name} ~ {result}"]) for result in OUTCOMES)] for name in PREDICTORS]
    return table(("Spearman's correlation with", *OUTCOMES), rows)


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
        "perceptual tokens of different images": [curve(each, "cone", "image") for each in last],
        "texts of different images": [curve(each, "cone", "text") for each in last],
        "across, different images": [curve(each, "ima", "image", "text", part="control") for each in last],
    }
    return _over_depth(rows, "cosine")


def _weight_chart(variants: Variants) -> str:
    found = [
        each for one in variants.values() for each in one["in depth"]["iou"] if set(each["of"]) == {"image", "text"}
    ]
    rows = {
        "image and text": [np.array(each["values"]) for each in found],
        "the same weights, norms dealt anew": [np.array(each["control"]) for each in found],
        "chance": [np.full(len(each["values"]), each["chance"]) for each in found],
    }
    return _over_depth(rows, "overlap (IoU)", first=1)


def _depth_chart(variants: Variants) -> str:
    steps = [*next(iter(variants.values()))["bridges"]]
    rows = {
        f"{step} steps": [curve(each["bridges"][step], "ima_matched", "image", "text") for each in variants.values()]
        for step in steps
    }
    return _over_depth(rows, "IMA, matched pairs")


def _trajectories(variants: Variants) -> str:
    lines = {}
    for name, each in variants.items():
        bridges = [*each["bridges"].values()]
        spans = [Estimate(*bridge["scores"]["caption"]["fact_f1"]) for bridge in bridges]
        lines[name] = [predictor(bridge, "IMA, all pairs") for bridge in bridges], spans
    return _chart(
        lines, "IMA, all pairs (a line is a variant, from untrained on)", "fact-F1 of captions", False, "bridge"
    )


def _change_chart(variants: Variants) -> str:
    last = _finished(variants)
    sides = {"perceptual tokens": "image", "text": "text"}
    change = {name: [curve(each, "consecutive_1", side) for each in last] for name, side in sides.items()}
    passed = {
        name: [
            np.array([one["in depth"]["whole"][0] - each[0] for each in one["in depth"]["skipped"][side].values()])
            for one in variants.values()
        ]
        for name, side in {"perceptual tokens pass it by": "perceptual", "all others pass it by": "text"}.items()
    }
    return _over_depth(change, "cosine with the block before", first=1) + _over_depth(passed, "fact-F1 lost", first=1)


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
