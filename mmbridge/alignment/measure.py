"""Measures a bridge: one forward pass over each sample, states read as they are made, scores from what was kept.

Memory beside the model, in bytes, for L blocks of width D, G = 100 lots and the default scores of one medium: the sums,
8 · 4 · G · D · (L + 1), as much again for each further site; of the batch in work as many states as the largest stride;
and 8 · 2001 · G · (L + 1) while intervals are drawn. Optional scores keep S pairs of a medium's M perceptual tokens and
a text of T: S · D · (L + 1) · (8 + size · (M + T)), where their number format has size bytes; of pooled states alone
S · D · (L + 1) · 8. While they are reckoned, token statistics and centred cosines take 8 · S² · (L + 1) for each table,
the logit lens 8 · 8 · V for V words and 16 MiB of logits, MIR 8 · S · (M + T) · D.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from mmbridge.alignment.clock import Clock
from mmbridge.alignment.default_scores import default_curves, depth_matrices, text_of
from mmbridge.alignment.definitions import definitions
from mmbridge.alignment.lens_scores import lens_parts
from mmbridge.alignment.lots import FEWEST
from mmbridge.alignment.media_numbers import MediaNumbers
from mmbridge.alignment.parts import Of, Part
from mmbridge.alignment.pooled_scores import centred_parts, kernel_parts, neighbour_parts, pca_parts, tsne_parts
from mmbridge.alignment.positions import TextName, positions
from mmbridge.alignment.report import AlignmentReport, Curve, Histogram, Matrix, Scalar, View, Words
from mmbridge.alignment.running import RunningSums
from mmbridge.alignment.site_states import BatchGroups, SiteStates
from mmbridge.alignment.stored import StoredDepth, StoredPairs
from mmbridge.alignment.token_scores import mir_parts, token_parts
from mmbridge.alignment.told import none_usable, told_batches
from mmbridge.alignment.weights.activated import DEFINITIONS, activated
from mmbridge.bridge import Bridge
from mmbridge.data.sources import Source
from mmbridge.errors import DataError, UserError
from mmbridge.evaluation.progress import Progress
from mmbridge.evaluation.reading import extent
from mmbridge.evaluation.report import Failure
from mmbridge.llm.sites import Site, SiteName, read_states

PooledName = Literal["centred", "neighbours", "kernels", "pca", "tsne"]
TokensName = Literal["tokens", "mir", "lens"]
OptionalName = PooledName | TokensName | Literal["weights"]
"""Scores that are measured when asked for, by what they need: pooled states of some pairs, all their tokens, or forward
passes of their own."""
OPTIONAL: tuple[OptionalName, ...] = (*get_args(TokensName), *get_args(PooledName), "weights")

_TEXTS: dict[TextName, str] = {"said": "what the assistant says", "after": "all words behind the first medium"}

STRIDES = (1, 8)
"""Over how many blocks states are compared with what they were, where the LLM has so many."""


def measure(
    bridge: Bridge,
    source: Source,
    name: str,
    *,
    limit: int | None = 1000,
    text: TextName = "said",
    sites: Sequence[SiteName] = (),
    optional: Collection[OptionalName] = (),
    stored: int = 200,
    strides: Sequence[int] = STRIDES,
    batch_size: int = 32,
) -> tuple[AlignmentReport, tuple[Failure, ...]]:
    """How perceptual tokens and text are aligned inside the LLM.

    Args:
        source: samples that show a medium, with an answer or one in their truth. Samples are compared with each other:
            what is said of one should not be true of most.
        name: of the bridge, for people.
        limit: at most so many samples, from the first.
        text: which positions are text.
        sites: where the default scores are measured beside the input and the blocks' outputs.
        optional: scores beside the default ones.
        stored: pairs of each medium that they are measured of, the first ones that show different ones.
        strides: over how many blocks states are compared with what they were; those of the default that the LLM has not
            are left out.
        batch_size: samples of one forward pass.

    Returns:
        The report, and the samples that are not in it.

    Raises:
        DataError: no sample can be used, or too few for the scores that are asked for.
        RecipeError: the LLM has no such site.
        UserError: it has fewer blocks than a stride that is no default.
    """
    blocks = len(bridge.llm.layers)
    if beyond := [stride for stride in strides if stride > blocks and stride not in STRIDES]:
        raise UserError("--stride", f"expected at most the {blocks} blocks of the LLM, found {beyond[0]}")
    strides = tuple(dict.fromkeys(stride for stride in strides if stride <= blocks))
    sums = [RunningSums(strides, site) for site in dict.fromkeys(("block", *sites))]
    names: set[SiteName] = {"input", *(each.site for each in sums)}
    asked = {*optional} - {"weights"}
    kept = StoredPairs(stored, tokens=bool({*get_args(TokensName)} & asked)) if asked else None
    clock, failed, number, done = Clock(bridge.device), dict[int, Failure](), 0, 0
    total, media = extent(source, limit), MediaNumbers()
    with bridge.at_rest(), torch.no_grad(), Progress(f"align {name}", total) as progress:
        for batch, read in told_batches(bridge, source, range(total), batch_size, failed):
            shown = [media(sample) for sample in batch.samples]
            with clock.of("forward"):
                context = bridge.spliced(batch, "right")
                groups = BatchGroups(positions(context, text), shown)

                def reader(site: Site, states: Tensor, groups: BatchGroups = groups) -> None:
                    at = SiteStates(site, states, groups)
                    with torch.autocast(bridge.device.type, enabled=False):  # on where a stage trains in bfloat16
                        with clock.of("default"):
                            for each in sums:
                                each.read(at)
                        if kept is not None and site.name in ("input", "block"):
                            with clock.of("storing"):
                                kept.read(at)

                read_states(bridge.llm, context, names, reader)
            number += len(batch)
            progress.advance(read - done)
            done = read
    if not any(by_depth[0].counts.any() for by_depth in sums[0].sums.values()):
        raise none_usable(source, failed)
    parts: list[Part] = []
    with clock.of("intervals"):
        for each in sums:
            parts += default_curves(each, sums[0])
        parts += depth_matrices(sums[0])
    if kept is not None:
        parts += _optional(bridge, kept, optional, clock)
    if "weights" in optional:
        _require(number, "pairs of media and text")
        with clock.of("weights"):
            used = activated(bridge, source, stored, limit=total, failed=failed)
        parts += (*used.curves, *used.matrices)
    return _report(bridge, name, source, parts, strides, clock, sums, kept, text, number), tuple(failed.values())


def _optional(bridge: Bridge, kept: StoredPairs, names: Collection[OptionalName], clock: Clock) -> Iterator[Part]:
    """The optional scores of each medium, in the order of their names' list.

    Raises:
        DataError: there are too few pairs.
    """
    known: dict[OptionalName, Callable[[dict[int, StoredDepth], Of], Iterator[Part]]] = {
        "tokens": token_parts,
        "centred": centred_parts,
        "neighbours": neighbour_parts,
        "kernels": kernel_parts,
        "mir": mir_parts,
        "lens": lambda depths, of: lens_parts(depths, of, bridge.llm),
        "pca": pca_parts,
        "tsne": tsne_parts,
    }
    few = {kind: count for kind, count in kept.counts.items() if count < FEWEST}
    if len(few) == len(kept.pairs):
        kind, count = next(iter(few.items()))
        _require(count, f"pairs of {kind} and text")
    for kind, depths in kept.pairs.items():
        if kind in few:
            continue
        of = kind, text_of(kind, len(kept.pairs))
        for name in known:
            if name in names:
                with clock.of(name):
                    found = [*known[name](depths, of)]
                yield from found


def _counted(kept: StoredPairs) -> str:
    """How many pairs are kept of each medium, and which are too few."""
    return ", ".join(
        f"{count} of {kind}" + (f" (not scored: expected at least {FEWEST})" if count < FEWEST else "")
        for kind, count in kept.counts.items()
    )


def _require(count: int, what: str) -> None:
    """Raises:
    DataError: there are too few to say how a score varies.
    """
    if count < FEWEST:
        problem = f"expected at least {FEWEST} {what}, each of another medium, to score, found {count}"
        raise DataError("--score", problem, "measure more media, or store more of them (--stored)")


def _report(
    bridge: Bridge,
    name: str,
    source: Source,
    parts: list[Part],
    strides: tuple[int, ...],
    clock: Clock,
    sums: Sequence[RunningSums],
    kept: StoredPairs | None,
    text: TextName,
    samples: int,
) -> AlignmentReport:
    used = {part.score for part in parts if not isinstance(part, View)}
    known = {**definitions(strides), **DEFINITIONS}
    forward = clock.seconds.pop("forward")
    of_stored = {} if kept is None else {"pairs stored": _counted(kept)}
    return AlignmentReport(
        bridge=name,
        about={
            "stage": bridge.stage or "untrained",
            "data": source.name,
            "samples": samples,
            **of_stored,
            "text": _TEXTS[text],
            "LLM": bridge.recipe.llm.path,
            "memory, MiB": round((sum(each.nbytes for each in sums) + (0 if kept is None else kept.nbytes)) / 2**20, 1),
            "seconds of plain forward passes": round(forward, 2),
        },
        definitions={each: definition for each, definition in known.items() if each in used},
        curves=tuple(part for part in parts if isinstance(part, Curve)),
        scalars=tuple(part for part in parts if isinstance(part, Scalar)),
        matrices=tuple(part for part in parts if isinstance(part, Matrix)),
        histograms=tuple(part for part in parts if isinstance(part, Histogram)),
        words=tuple(part for part in parts if isinstance(part, Words)),
        views=tuple(part for part in parts if isinstance(part, View)),
        cost={each: 1 + seconds / forward for each, seconds in clock.seconds.items()},
    )
