"""The default scores, from running sums: implicit multimodal alignment, narrow cones, the gap, norms, slow change.

Implicit Multimodal Alignment: On the Generalization of Frozen LLMs to Multimodal Inputs
Mustafa Shukor, Matthieu Cord, arXiv 2405.16700

Mind the Gap: Understanding the Modality Gap in Multi-modal Contrastive Representation Learning
Weixin Liang, Yuhui Zhang, Yongchan Kwon, Serena Yeung, James Zou, arXiv 2203.02053 (gap)

Notation of the definitions: x is a state after block l; P_i perceptual tokens and T_i text of sample i; P̄ the mean of
their states; x̂ = x / |x|; N samples. All readings of the IMA score that paper and released code allow are here, for it
is not said which one the paper's tables hold: perceptual tokens of the same depth or of the LLM's input; states pooled
first, or the mean over all pairs of tokens; all pairs of samples, or matched ones alone.

differs from the paper: its last depth is the raw output of the last block, as all others, where it stops one before;
the mean over depths starts at the input (its layer 0) and goes to the last block. Cones are measured over all pairs of
different samples rather than between two halves. States after n blocks are compared within a sample and token, where
the released code compares tokens of all samples.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite, nan, sqrt
from statistics import fmean

import torch

from mmbridge.alignment.lots import Lots, Resampled, lots, products
from mmbridge.alignment.parts import resampled_curve
from mmbridge.alignment.report import Curve, Matrix
from mmbridge.alignment.running import PairSums, RunningSums, Side
from mmbridge.data.sample import MediumKind

Depths = Mapping[int, PairSums]


def text_of(kind: MediumKind, kinds: int) -> str:
    """What the text beside a medium is called: plainly, where there is one medium only."""
    return "text" if kinds == 1 else f"text beside {kind}"


def default_curves(read: RunningSums, at_input: RunningSums) -> Iterator[Curve]:
    """Every default score over depth.

    Args:
        read: sums of the states.
        at_input: sums that begin with the LLM's input: the same, where they do.
    """
    yield from (replace(each, site=read.site) for each in _curves(read.sums, at_input.sums))


def depth_matrices(read: RunningSums) -> Iterator[Matrix]:
    """IMA of all pairs between perceptual tokens at every depth (rows) and text at every depth; NaN where widths
    differ."""
    for kind, depths in read.sums.items():
        means = [[each.directions[side].sum(dim=0) / each.counts.sum() for each in depths.values()] for side in Side]
        values = tuple(
            tuple(float(one @ other) if one.shape == other.shape else nan for other in means[Side.TEXT])
            for one in means[Side.PERCEPTUAL]
        )
        names = tuple(map(str, depths))
        yield Matrix("ima_depths", (kind, text_of(kind, len(read.sums))), names, names, values, 0.0)


def _curves(sums: Mapping[MediumKind, Depths], at_input: Mapping[MediumKind, Depths]) -> Iterator[Curve]:
    for kind, depths in sums.items():
        text = text_of(kind, len(sums))
        drawn = lots(next(iter(depths.values())).counts)
        yield from _ima(depths, at_input[kind][0], drawn, (kind, text))
        cones = []
        for side, name in ((Side.PERCEPTUAL, kind), (Side.TEXT, text)):
            cone, *others = _of_one(depths, drawn, side, name)
            cones.append(cone)
            yield from (cone, *others)
        chance = _gap_chance(cones, int(drawn.counts.sum()))
        yield resampled_curve("gap", (kind, text), depths, _gap(depths, drawn), chance=chance)
    yield from _across(sums)


def _ima(depths: Depths, first: PairSums, drawn: Lots, of: tuple[str, str]) -> Iterator[Curve]:
    """IMA in every reading, each beside text of other samples; ``first`` are sums at the LLM's input."""
    readings: tuple[tuple[str, str, str, str], ...] = (
        ("", "directions", "matched", "from_input"),
        ("_tokens", "units", "matched_units", "units_from_input"),
    )
    for name, sums, matched, matched_from_input in readings:
        for at, own in (("", matched), ("_input", matched_from_input)):
            comparable = {
                depth: each
                for depth, each in depths.items()
                if not at or each.directions.shape == first.directions.shape
            }
            if not comparable:
                continue
            perceptual = [getattr(first if at else each, sums)[Side.PERCEPTUAL] for each in comparable.values()]
            pairs = products(perceptual, [getattr(each, sums)[Side.TEXT] for each in comparable.values()])
            of_matched = torch.stack([getattr(each, own) for each in comparable.values()])
            other = drawn.other_pairs(pairs)
            score = f"ima{name}{at}"
            yield resampled_curve(score, of, comparable, drawn.all_pairs(pairs), other, 0.0)
            yield resampled_curve(f"{score}_matched", of, comparable, drawn.means(of_matched), other, 0.0)


def _of_one(depths: Depths, drawn: Lots, side: Side, name: str) -> Iterator[Curve]:
    """Cone first, then norms and change of one group."""
    directions = [each.directions[side] for each in depths.values()]
    yield resampled_curve("cone", (name,), depths, drawn.other_pairs(products(directions, directions)), chance=0.0)
    units = [each.units[side] for each in depths.values()]
    yield resampled_curve("cone_tokens", (name,), depths, drawn.other_pairs(products(units, units)), chance=0.0)
    norms = torch.stack([each.norms[side] for each in depths.values()])
    yield resampled_curve("norm", (name,), depths, drawn.means(norms))
    for stride in dict.fromkeys(stride for each in depths.values() for stride in each.steps):
        behind = {depth: each for depth, each in depths.items() if stride in each.steps}
        cosines = torch.stack([each.steps[stride][side] for each in behind.values()])
        yield resampled_curve(f"consecutive_{stride}", (name,), behind, drawn.means(cosines), chance=0.0)


def _gap(depths: Depths, drawn: Lots) -> Resampled:
    """The distance between the two means of directions."""
    sides = [[each.directions[side] for each in depths.values()] for side in Side]
    inner = [[drawn.all_pairs(products(one, other)) for other in sides] for one in sides]
    return (inner[0][0] + inner[1][1] - 2 * inner[0][1]).clamp(min=0).sqrt()


def _gap_chance(cones: Sequence[Curve], samples: int) -> list[float]:
    """Of two lots of N samples from one cloud, as narrow as the two are on average: √((1 − cone) 2/N)."""
    inside = [fmean(each.value for each in both) for both in zip(*(cone.values for cone in cones), strict=True)]
    return [sqrt(max(0.0, 1 - each) * 2 / samples) if isfinite(each) else nan for each in inside]


def _across(sums: Mapping[MediumKind, Depths]) -> Iterator[Curve]:
    """Perceptual tokens of two media, and the texts beside them, of samples that show different media."""
    kinds = list(sums)
    for number, one in enumerate(kinds):
        for other in kinds[number + 1 :]:
            pairs = [(sums[one][depth], sums[other][depth]) for depth in sums[one]]
            counts, beside = (each.counts for each in pairs[0])
            drawn = replace(lots(counts + beside), counts=counts)
            for side, of in (
                (Side.PERCEPTUAL, (one, other)),
                (Side.TEXT, (text_of(one, len(kinds)), text_of(other, len(kinds)))),
            ):
                between = products([a.directions[side] for a, _ in pairs], [b.directions[side] for _, b in pairs])
                yield resampled_curve("across", of, sums[one], drawn.other_pairs(between, beside), chance=0.0)
