"""The weights that media and text activate in a bridge's LLM, and how far they are the same.

Implicit Multimodal Alignment: On the Generalization of Frozen LLMs to Multimodal Inputs
Mustafa Shukor, Matthieu Cord, arXiv 2405.16700

The LLM reads the samples in several ways, each in passes of its own: the perceptual tokens of one medium alone, with no
word beside them; ``text``, the rest of the conversation without them, answers included; ``both``, whole samples. Each
has a mask of the weights that score highest by Wanda.

differs from the paper: beside chance stands a control. Masks of one LLM share its magnitudes |W| whatever is read, so
that any two agree above chance; the control is the IoU of the first mask with the second's after the norms of its
activations have been dealt anew among the inputs of each layer, which leaves the magnitudes and the spread of norms.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from mmbridge.alignment.report import Curve, Definition, Matrix
from mmbridge.alignment.told import none_usable, told_batches
from mmbridge.alignment.weights.iou import chance, iou, iou_across_depth, split
from mmbridge.alignment.weights.masks import magnitude, random, wanda
from mmbridge.alignment.weights.wanda import Norms, input_norms, permuted
from mmbridge.bridge import Bridge
from mmbridge.context import ForwardContext
from mmbridge.data.sample import MediumKind
from mmbridge.data.sources import Source
from mmbridge.evaluation import bootstrap
from mmbridge.evaluation.bootstrap import Estimate
from mmbridge.evaluation.reading import extent
from mmbridge.evaluation.report import Failure
from mmbridge.llm.prompt import Placeholder, Prompt
from mmbridge.llm.splice import splice
from mmbridge.llm.weight_mask import WeightMask

TEXT, BOTH = "text", "both"
STRIDE = 2
"""Blocks from one mask of a layer type to the other, in ``iou_across_depth``."""

DEFINITIONS: Mapping[str, Definition] = {
    "iou": Definition(
        title="Weights that both activate",
        formula="|K₁ ∧ K₂| / |K₁ ∨ K₂|, K the weights of a linear layer that score highest by |W_oi|·‖x_i‖₂ within "
        "their row o, with ‖x_i‖₂ over the tokens of one group; means over the linear layers of a block, each alike",
        unit="share of weights, 0 to 1; intervals are over linear layers, not over samples",
        better="higher",
        chance="k / (2 − k) for masks that keep a share k, each without regard to the other",
        control="the second group's norms dealt anew among the inputs of each layer: what shared magnitudes |W| bring",
        source="arXiv 2405.16700, with padding left out; scores as in Wanda, arXiv 2306.11695",
    ),
    "iou_across_depth": Definition(
        title=f"Weights active {STRIDE} blocks apart",
        formula=f"the same between layers of one type in blocks l and l + {STRIDE}, within one group's mask",
        unit="share of weights, 0 to 1; intervals are over linear layers, not over samples",
        better="neither",
        chance="k / (2 − k), as above",
        control="",
        source="arXiv 2405.16700",
    ),
}


@dataclass(frozen=True, slots=True)
class Activated:
    """``masks`` by group: each medium's perceptual tokens, ``text`` and ``both``. The rest goes into a report, beside
    ``DEFINITIONS``."""

    masks: Mapping[str, WeightMask]
    curves: tuple[Curve, ...]
    matrices: tuple[Matrix, ...]


def activated(
    bridge: Bridge,
    source: Source,
    samples: int = 128,
    sparsity: float = 0.5,
    batch_size: int = 8,
    *,
    sequential: bool = True,
    limit: int | None = None,
    failed: MutableMapping[int, Failure] | None = None,
) -> Activated:
    """The weights that each way of reading activates.

    Args:
        source: of media with an answer or one in their truth, spread over which ``samples`` are read.
        sparsity: the share of every row's weights that a mask drops.
        batch_size: samples read at once; of no consequence for what is found.
        sequential: later blocks read what pruned ones make, as in the paper, rather than what whole ones do.
        limit: read from the first so many samples only.
        failed: takes those that cannot be used, by their number.

    Raises:
        DataError: nothing to read, or nothing that can be used.
        RecipeError: the LLM is quantised.
        UserError: the sparsity is none.
    """
    found = {
        group: input_norms(bridge.llm, contexts, sparsity if sequential else None)
        for group, contexts in readings(bridge, source, samples, batch_size, limit, failed).items()
    }
    about = f"wanda, {samples} samples of {source.name}, sparsity {sparsity:g}"
    masks = {group: wanda(bridge.llm, norms, sparsity, f"{group}: {about}") for group, norms in found.items()}
    controls = {"magnitude": magnitude(bridge.llm, sparsity), "random": random(bridge.llm, sparsity)}
    pairs = list(combinations(masks, 2))
    return Activated(
        masks,
        (
            *(_between(bridge, pair, masks, found[pair[1]], sparsity) for pair in pairs),
            *(_across(group, mask) for group, mask in masks.items() if iou_across_depth(mask, STRIDE)),
        ),
        (_overall(masks | controls), *(_by_layer(pair, masks) for pair in pairs)),
    )


def readings(
    bridge: Bridge,
    source: Source,
    samples: int,
    batch_size: int,
    limit: int | None = None,
    failed: MutableMapping[int, Failure] | None = None,
) -> dict[str, list[ForwardContext]]:
    """Batches of each way of reading, perceptual tokens of each medium first, then ``text`` and ``both``.

    Raises:
        DataError: as ``activated``.
    """
    found: dict[str, list[ForwardContext]] = {}
    failed, total = {} if failed is None else failed, extent(source, limit)
    chosen = np.unique(np.linspace(0, total - 1, min(samples, total)).round().astype(int)).tolist()
    for batch, _ in told_batches(bridge, source, chosen, batch_size, failed):
        with bridge.at_rest(), torch.no_grad():
            perceived = bridge.perceive(batch)
            for group, rows in _ways(batch.prompts, perceived.tokens).items():
                found.setdefault(group, []).append(_spliced(bridge, rows))
    media = sorted(found.keys() - {TEXT, BOTH})
    if not media or TEXT not in found:
        raise none_usable(source, failed)
    return {group: found[group] for group in (*media, TEXT, BOTH)}


_Row = tuple[Prompt, Sequence[Tensor]]


def _ways(prompts: Sequence[Prompt], tokens: Sequence[Sequence[Tensor]]) -> dict[str, list[_Row]]:
    """What is read of each sample, by group; nothing where it has nothing of that."""
    found: dict[str, list[_Row]] = {}
    for prompt, media in zip(prompts, tokens, strict=True):
        for kind in sorted({each.medium for each in prompt.placeholders}):
            alone = _perceptual(prompt, media, kind)
            if sum(map(len, alone[1])):
                found.setdefault(kind, []).append(alone)
        if len(prompt.ids) > len(prompt.placeholders):
            found.setdefault(TEXT, []).append((_text(prompt), ()))
        found.setdefault(BOTH, []).append((prompt, media))
    return found


def _perceptual(prompt: Prompt, media: Sequence[Tensor], kind: MediumKind) -> _Row:
    own = [(each, values) for each, values in zip(prompt.placeholders, media, strict=True) if each.medium == kind]
    places = tuple(Placeholder(position, kind) for position in range(len(own)))
    ids = tuple(prompt.ids[each.position] for each, _ in own)
    return Prompt(prompt.sample, ids, (False,) * len(own), places, ""), [values for _, values in own]


def _text(prompt: Prompt) -> Prompt:
    gone = {each.position for each in prompt.placeholders}
    stay = [position for position in range(len(prompt.ids)) if position not in gone]
    ids, supervised = (tuple(each[position] for position in stay) for each in (prompt.ids, prompt.supervised))
    return Prompt(prompt.sample, ids, tuple(map(bool, supervised)), (), prompt.text)


def _spliced(bridge: Bridge, rows: Sequence[_Row]) -> ForwardContext:
    llm, (prompts, tokens) = bridge.llm, zip(*rows, strict=True)
    return splice(llm.embed, prompts, tokens, side="right", pad_id=llm.pad_id, max_length=llm.max_length)


def _between(
    bridge: Bridge, pair: tuple[str, str], masks: Mapping[str, WeightMask], norms: Norms, sparsity: float
) -> Curve:
    first, second = (masks[group] for group in pair)
    dealt = wanda(bridge.llm, permuted(norms), sparsity, "control")
    depths, values, mean = _by_depth(iou(first, second))
    level = (chance(first, second),) * len(depths)
    return Curve("iou", pair, "block", depths, values, mean, _by_depth(iou(first, dealt))[1], level)


def _across(group: str, mask: WeightMask) -> Curve:
    depths, values, mean = _by_depth(iou_across_depth(mask, STRIDE))
    level = (chance(mask, mask),) * len(depths)
    return Curve("iou_across_depth", (group,), "block", depths, values, mean, chance=level)


def _by_depth(found: Mapping[str, float]) -> tuple[tuple[int, ...], tuple[Estimate, ...], Estimate]:
    """Depths, the mean over the layers of each, and that over all; depth l is of block l, counted from 1."""
    blocks = np.array([split(name)[0] for name in found])
    values, depths = np.array(list(found.values())), np.unique(blocks)
    each = tuple(bootstrap.mean(values[blocks == block]) for block in depths)
    return tuple(int(block) + 1 for block in depths), each, bootstrap.mean(values, blocks)


def _overall(masks: Mapping[str, WeightMask]) -> Matrix:
    names = tuple(masks)
    values = tuple(tuple(float(np.mean([*iou(masks[a], masks[b]).values()])) for b in names) for a in names)
    some = masks[TEXT]
    return Matrix("iou", (), names, names, values, chance(some, some))


def _by_layer(pair: tuple[str, str], masks: Mapping[str, WeightMask]) -> Matrix:
    """Types of layers by blocks; not a number where a block has none of a type."""
    first, second = (masks[group] for group in pair)
    found = iou(first, second)
    kinds, blocks = (tuple(dict.fromkeys(split(name)[which] for name in found)) for which in (1, 0))
    values = tuple(tuple(found.get(f"{block}.{kind}", float("nan")) for block in blocks) for kind in kinds)
    names = tuple(f"block {int(block) + 1}" for block in blocks)
    return Matrix("iou", pair, tuple(map(str, kinds)), names, values, chance(first, second))
