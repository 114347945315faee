"""What the alignment study finds of each claim of the paper, in figures.

Implicit Multimodal Alignment: On the Generalization of Frozen LLMs to Multimodal Inputs
Mustafa Shukor, Matthieu Cord, arXiv 2405.16700

Every verdict follows from a rule that stands beside it. Intervals are percentiles of 2,000 resamples of whole variants
(an encoder, a connector and a seed, with all its bridges), for bridges of one variant are not independent. Where
samples show several media, it is the first that is studied. Data whose captions have no known facts are judged by
CIDEr, and hallucination by POPE alone.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

Variants = Mapping[str, Mapping[str, Any]]
Span = tuple[float, float, float]
Floats = NDArray[np.float64]

PERCEPTUAL, TEXT = "perceptual", "text"
"""What curves are of, whatever the medium is called."""

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
CAPTIONS = ("captions, fact-F1", "captions, CIDEr")
HALLUCINATION = ("hallucinated facts (CHAIR-i)", "wrong yes (POPE, 1 − precision)")
"""By which claims are judged: the first that the data allow."""
OUTCOMES: Mapping[str, tuple[str, str]] = {
    CAPTIONS[0]: ("caption", "fact_f1"),
    CAPTIONS[1]: ("caption", "cider"),
    "questions, accuracy": ("vqa", "accuracy"),
    "existence (POPE), accuracy": ("pope", "accuracy"),
    HALLUCINATION[0]: ("caption", "chair_i"),
    HALLUCINATION[1]: ("pope", "precision"),
}
"""How good a bridge is, and the metric of the task that says so."""


def outcomes(every: Sequence[Mapping[str, Any]]) -> list[str]:
    """Those that were measured of all bridges; CIDEr where nothing better was."""
    bridges = [bridge for each in every for bridge in each["bridges"].values()]
    known = [name for name, (task, metric) in OUTCOMES.items() if all(metric in b["scores"][task] for b in bridges)]
    return [name for name in known if name != CAPTIONS[1] or CAPTIONS[0] not in known]


def named(bridge: Mapping[str, Any]) -> dict[str, str]:
    """What the two sides are called in a bridge's curves."""
    kind, text = next(each["of"] for each in bridge["curves"] if each["score"] == "ima")
    return {PERCEPTUAL: kind, TEXT: text}


def curve(bridge: Mapping[str, Any], score: str, *of: str, part: str = "values") -> Floats:
    """(L,) of a measured bridge; ``of`` one side, or both."""
    names = named(bridge)
    sought = score, [names[each] for each in of]
    (found,) = [each for each in bridge["curves"] if (each["score"], list(each["of"])) == sought]
    return np.array([np.nan if each[0] is None else each[0] for each in found[part]], dtype=np.float64)


def predictor(bridge: Mapping[str, Any], name: str) -> float:
    score, sign = PREDICTORS[name]
    if score == "margin":
        matched = curve(bridge, "ima_matched", PERCEPTUAL, TEXT)
        return float((matched - curve(bridge, "ima_matched", PERCEPTUAL, TEXT, part="control")).mean())
    return sign * float(curve(bridge, score, PERCEPTUAL, TEXT).mean())


def outcome(bridge: Mapping[str, Any], name: str) -> float:
    """A bridge that states no fact, or affirms nothing, hallucinates none, which says nothing: NaN."""
    task, metric = OUTCOMES[name]
    found = bridge["scores"][task]
    value = float(found[metric][0])
    if metric == "chair_i":
        return float("nan") if value == 0 == found["fact_f1"][0] else value
    if metric == "precision":
        return float("nan") if found["yes_rate"][0] == 0 else 1 - value
    return value


def overlap(variant: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the weights that perceptual tokens and text activate, in a finished bridge."""
    medium = named(next(iter(variant["bridges"].values())))[PERCEPTUAL]
    return next(each for each in variant["in depth"]["iou"] if {*each["of"]} == {medium, TEXT})


def lost(variant: Mapping[str, Any], side: str) -> Floats:
    """(L,) by how much captions are worse where one side's tokens pass a block by."""
    depth = variant["in depth"]
    return np.array([depth["whole"][0] - each[0] for each in depth["skipped"][side].values()])


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
    inside = {side: [float(curve(each, "cone", side).mean()) for each in last] for side in (PERCEPTUAL, TEXT)}
    across = [float(curve(each, "ima", PERCEPTUAL, TEXT, part="control").mean()) for each in last]
    gaps = {side: resampled([*zip(cones, across, strict=True)], lambda rows: mean([a - b for a, b in rows]))
            for side, cones in inside.items()}  # fmt: skip
    holds = sum(min(a, b) > c for a, b, c in zip(*inside.values(), across, strict=True))
    return {
        "claim": "Perceptual tokens and text live in separate narrow cones.",
        "rule": "Reproduces where cosines within each side are above those across, in every finished bridge.",
        "verdict": _verdict(holds, len(last)),
        "figures": {
            "cosine among perceptual tokens of different samples": resampled(inside[PERCEPTUAL], mean),
            "cosine among texts of different samples": resampled(inside[TEXT], mean),
            "cosine across the two, different samples": resampled(across, mean),
            "perceptual above across": gaps[PERCEPTUAL],
            "text above across": gaps[TEXT],
        },
        "told": f"In {holds} of {len(last)} finished bridges both cones are narrower than what joins them.",
    }


def _weights(every: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = [overlap(each) for each in every]
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
        curves = [curve(each, score, PERCEPTUAL, TEXT) for each in last]
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
    figures, final, known = {}, {}, outcomes(every)
    captions, wrong = (next(each for each in of if each in known) for of in (CAPTIONS, HALLUCINATION))
    for name in PREDICTORS:
        for result in known:
            rows = [[(predictor(b, name), outcome(b, result)) for b in each["bridges"].values()] for each in every]
            figures[f"{name} ~ {result}"] = resampled(rows, correlation)
            final[f"{name} ~ {result}"] = resampled([row[-1:] for row in rows], correlation)
    holds = (figures[f"IMA, all pairs ~ {captions}"][1] > 0) + (figures[f"IMA, all pairs ~ {wrong}"][2] < 0)
    return {
        "claim": "The score tells task accuracy, and, with the opposite sign, hallucination.",
        "rule": "Spearman's correlation over all bridges. Reproduces where that of IMA (all pairs, as published) with "
        f"{captions} is above 0 and that with {wrong} below 0, intervals included.",
        "verdict": _verdict(holds, 2),
        "figures": figures,
        "among finished bridges": final,
        "told": "Over all bridges training time moves both sides; among finished ones encoder and connector alone do. "
        "Bridges that state no fact, or affirm nothing, are left out of what is held against hallucination.",
    }


def _slow(every: Sequence[Mapping[str, Any]], last: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    change = {side: [float(curve(each, "consecutive_1", side).mean()) for each in last] for side in (PERCEPTUAL, TEXT)}
    norms = {side: [float(curve(each, "norm", side).mean()) for each in last] for side in (PERCEPTUAL, TEXT)}

    slower = resampled([a - b for a, b in zip(*change.values(), strict=True)], mean)
    cost = {side: [float(lost(one, side).mean()) for one in every] for side in (PERCEPTUAL, TEXT)}
    cheaper = resampled([a - b for a, b in zip(cost[TEXT], cost[PERCEPTUAL], strict=True)], mean)
    score = "fact-F1" if CAPTIONS[0] in outcomes(every) else "CIDEr"
    return {
        "claim": "Perceptual tokens change slowly from block to block, so that computation on them can be skipped.",
        "rule": "Reproduces where they change less than text does, and where captions lose less by passing perceptual "
        "tokens by one block than by passing text by; intervals above 0.",
        "verdict": _verdict((slower[1] > 0) + (cheaper[1] > 0), 2),
        "figures": {
            "cosine with the block before, perceptual tokens": resampled(change[PERCEPTUAL], mean),
            "the same, text": resampled(change[TEXT], mean),
            "perceptual above text": slower,
            "norm of perceptual tokens over that of text": resampled(
                [a / b for a, b in zip(norms[PERCEPTUAL], norms[TEXT], strict=True)], mean
            ),
            f"{score} lost where perceptual tokens pass one block by": resampled(cost[PERCEPTUAL], mean),
            f"{score} lost where all other tokens do": resampled(cost[TEXT], mean),
            "what passing text by costs more": cheaper,
        },
        "told": "Tokens that pass a block by leave with what they came with; the mean is over the blocks.",
    }


def _verdict(holds: int, of: int) -> str:
    return "reproduces" if holds == of else "does not reproduce" if holds == 0 else "reproduces in part"
