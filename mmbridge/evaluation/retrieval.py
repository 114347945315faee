"""Retrieval: which text of a pool is nearest to each medium, and which medium to each text.

The pool is all media and all captions of a source (``mmbridge.evaluation.pool``). Recall@1, @5 and @10 and the median
rank are taken both ways; a medium may have several right texts, and a text several right media. Intervals are over
media: a text is drawn with the first medium that has it.

differs from the usual protocol on COCO and Flickr30k: equal captions are one text rather than several, of which those
of other media would count as wrong.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from mmbridge.bridge import Bridge
from mmbridge.connectors.text_heads import similarities
from mmbridge.data.sources import Source
from mmbridge.evaluation import bootstrap
from mmbridge.evaluation.bootstrap import Estimate
from mmbridge.evaluation.flops import executed_flops
from mmbridge.evaluation.pool import Pool, pooled
from mmbridge.evaluation.ranking import Numbers, Ranking, chance_median, chance_recall, ranking
from mmbridge.evaluation.report import Report, Row
from mmbridge.ranks import ALONE, Ranks
from mmbridge.spaces import Space, SpaceName, shown, space_of

Item = TypeVar("Item")

CUTS = (1, 5, 10)
"""The k of recall@k."""

_COUNTED = 32
"""Media, and texts, that go once more through the bridge to count FLOPs."""


class Direction(NamedTuple):
    """One way of looking: from what to what, what was found, which medium each query is of, how many candidates there
    are and how many of them are right for each query."""

    name: str
    found: Ranking
    owners: Numbers
    candidates: int
    right: Numbers


def retrieve(
    bridge: Bridge,
    source: Source,
    space: SpaceName | None = None,
    limit: int | None = None,
    batch_size: int = 32,
    *,
    count_flops: bool = True,
    ranks: Ranks = ALONE,
) -> Report:
    """Finds the texts of every medium of a source among all its texts, and the media of every text.

    Args:
        source: samples of one medium, with ``caption`` or ``references`` in their truth.
        space: where they are compared; as ``space_of`` has it by default. The report says which it was.
        limit: at most so many samples, from the first.
        batch_size: media or texts that go through the bridge at once.
        count_flops: also says how many were executed, for which a batch is made twice.
        ranks: the processes that share the work; each calls this alike and gets the report of all, in which only
            ``seconds`` are its own.

    Returns:
        Metrics by ``recall@k`` or ``median_rank`` and direction, chance beside them; a row for each medium.

    Raises:
        DataError: an empty source, or a sample without a caption or with anything but one medium. One that cannot be
            read is in the report's ``failed`` instead.
        RecipeError: there is no such space.
    """
    compared = space_of(bridge, space)
    pool = pooled(bridge, compared, source, limit, batch_size, ranks)
    start = time.perf_counter()
    ways = both_ways(pool, bridge.device) if pool.shown else ()
    seconds = pool.seconds + time.perf_counter() - start
    flops, note = _flops(bridge, compared, source, pool) if count_flops else (None, "not counted")
    return Report(
        task="retrieval",
        metrics=dict(pair for way in ways for pair in scores(way).items()),
        rows=_rows(pool, *ways) if ways else (),
        failed=tuple(pool.failed[index] for index in sorted(pool.failed)),
        seconds=seconds,
        flops=flops,
        flops_note=note,
        chance=dict(pair for way in ways for pair in chance(way).items()),
        about={"space": compared.about, "media": len(pool.shown), "texts": len(pool.said)},
    )


def both_ways(pool: Pool, device: torch.device) -> tuple[Direction, Direction]:
    """From media to texts, and from texts to media."""
    media, texts, right = pool.media.to(device), pool.texts.to(device), pool.right
    shape, depth = (len(media), len(texts)), media.shape[1]
    to_texts = ranking(lambda part: similarities(media[part], texts), right, shape, depth=depth)
    to_media = ranking(lambda part: similarities(media, texts[part]).T, right.flip(1), shape[::-1], depth=depth)
    medium, text = right.numpy().T
    _, first = np.unique(text, return_index=True)
    kinds = {each.kind for each in pool.shown}
    kind = kinds.pop() if len(kinds) == 1 else "media"
    return (
        Direction(f"{kind}_to_text", to_texts, np.arange(len(media)), len(texts), np.bincount(medium)),
        Direction(f"text_to_{kind}", to_media, medium[first], len(media), np.bincount(text)),
    )


def scores(way: Direction) -> dict[str, Estimate]:
    """Recalls and the median rank of one direction, by name."""
    ranks, owners = way.found.ranks, way.owners
    found = {f"recall@{k}/{way.name}": bootstrap.mean(ranks <= k, owners) for k in CUTS}
    return found | {f"median_rank/{way.name}": bootstrap.median(ranks, owners)}


def chance(way: Direction) -> dict[str, float]:
    """What a random order of the same candidates reaches, by the same names."""
    found = {f"recall@{k}/{way.name}": chance_recall(way.right, way.candidates, k) for k in CUTS}
    return found | {f"median_rank/{way.name}": chance_median(way.right, way.candidates)}


def _rows(pool: Pool, to_texts: Direction, to_media: Direction) -> tuple[Row, ...]:
    """For each medium the nearest text and the rank of its own nearest; for each of its texts the same of media."""
    texts = list(pool.said)
    told = {
        text: {"text": text, "prediction": pool.shown[nearest].id, "rank": int(rank)}
        for text, nearest, rank in zip(texts, to_media.found.nearest, to_media.found.ranks, strict=True)
    }
    return tuple(
        Row(
            each.id,
            texts[nearest],
            {"references": list(each.texts)},
            perceptual_tokens=each.perceptual_tokens,
            more={"rank": int(rank), "texts": [told[text] for text in each.texts]},
        )
        for each, nearest, rank in zip(pool.shown, to_texts.found.nearest, to_texts.found.ranks, strict=True)
    )


def _flops(bridge: Bridge, space: Space, source: Source, pool: Pool) -> tuple[int | None, str]:
    """FLOPs executed for all media and texts, from some spread evenly over them, run again outside the clock."""
    if not pool.shown:
        return None, "no sample was read"
    media, texts = _spread(pool.shown), _spread([*pool.said.values()])
    batch = bridge.collate()([shown(each.id, source[each.index].media[0]) for each in media])
    seeing = executed_flops(lambda: space.media(batch)) * len(pool.shown) / len(media)
    reading = executed_flops(lambda: space.texts(texts)) * len(pool.said) / len(texts)
    comparing = 2 * 2 * pool.media[..., 0].numel() * pool.texts.numel()  # every pair, both ways
    note = (
        f"counted on one batch of {len(media)} media and one of {len(texts)} texts, spread over the pool, and scaled "
        f"to {len(pool.shown)} and {len(pool.said)}; beside all similarities, both ways"
    )
    return round(seeing + reading) + comparing, note


def _spread(items: Sequence[Item]) -> Sequence[Item]:
    return items[:: -(-len(items) // _COUNTED)]
