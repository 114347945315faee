"""What measuring alignment costs beside the forward passes it reads: ``python benchmarks/alignment_cost.py``.

1,000 scenes with their captions through the quickstart's bridge (encoder, connector and LLM; media are decoded before,
logits are not made): plain forward passes, the same with the default scores (IMA, cones, gap, norms, change over a
block), their intervals and what tells media apart, paired. Then every optional score once, as the verb tells its
factor. Memory is that of the sums and stored states, and how far the process's peak rises above that of plain passes.
Writes ``results/alignment_cost.json``.
"""

import argparse
import resource
from collections.abc import Callable, Sequence
from typing import get_args

import torch
from paired import paired
from record import Record
from torch import Tensor

from mmbridge import Bridge, Recipe
from mmbridge.alignment.default_scores import default_curves, depth_matrices
from mmbridge.alignment.measure import STRIDES, PooledName, TokensName, measure
from mmbridge.alignment.media_numbers import MediaNumbers
from mmbridge.alignment.positions import positions
from mmbridge.alignment.running import RunningSums
from mmbridge.alignment.site_states import BatchGroups, SiteStates
from mmbridge.alignment.told import told
from mmbridge.data.batch import Batch
from mmbridge.data.world.source import WorldSource
from mmbridge.llm.sites import Site, read_states

BATCH = 32


@torch.no_grad()
def plain(bridge: Bridge, batches: Sequence[Batch]) -> None:
    """Forward passes alone."""
    for batch in batches:
        read_states(bridge.llm, bridge.spliced(batch, "right"), [], lambda *_: None)


@torch.no_grad()
def with_scores(bridge: Bridge, batches: Sequence[Batch]) -> tuple[RunningSums, int]:
    """The default scores on the way; the sums, and how many curves there are."""
    sums, media = RunningSums([stride for stride in STRIDES if stride <= len(bridge.llm.layers)]), MediaNumbers()
    for batch in batches:
        context = bridge.spliced(batch, "right")
        groups = BatchGroups(positions(context, "said"), [media(sample) for sample in batch.samples])

        def reader(site: Site, states: Tensor, groups: BatchGroups = groups) -> None:
            sums.read(SiteStates(site, states, groups))

        read_states(bridge.llm, context, ["input", "block"], reader)
    return sums, len([*default_curves(sums, sums), *depth_matrices(sums)])


def peak() -> float:
    """MiB that the process has had in memory at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()

    torch.set_num_threads(given.threads)
    record = Record("alignment_cost")
    bridge, source = Bridge(Recipe.load("quickstart")), WorldSource("test", given.samples, 6, "caption")
    collate = bridge.collate()
    batches = [
        collate([told(source[index]) for index in range(start, min(start + BATCH, len(source)))])
        for start in range(0, len(source), BATCH)
    ]
    ways: dict[str, Callable[[], object]] = {
        "plain forward passes": lambda: plain(bridge, batches),
        "default scores": lambda: with_scores(bridge, batches),
    }
    plain(bridge, batches)
    at_plain = peak()
    memory, at_default = with_scores(bridge, batches)[0].nbytes, peak()
    figures = paired(ways, given.rounds)
    for found in figures.values():
        ratio, low, high = found.pop("speed-up")
        found["× plain"] = [1 / ratio, 1 / high, 1 / low]
    record.keep("paired", figures)
    for name, found in figures.items():
        ratio, low, high = found["× plain"]
        print(f"{name:<40}{found['seconds']:>9.3f} s   × {ratio:.2f} [{low:.2f}, {high:.2f}]")
    report, _ = measure(
        bridge, source, "quickstart", optional=(*get_args(TokensName), *get_args(PooledName), "weights")
    )
    record.keep("optional scores, × plain", dict(report.cost))
    memories = {
        "sums": memory / 2**20,
        "sums and stored states": report.about["memory, MiB"],
        "peak above plain passes, default scores": at_default - at_plain,
        "peak above plain passes, all scores": peak() - at_plain,
    }
    record.keep("memory, MiB", memories)
    for name, factor in report.cost.items():
        print(f"{name:<40}× {factor:.2f}")
    for name, each in memories.items():
        print(f"{name:<40}{float(each):>9.1f} MiB")


if __name__ == "__main__":
    main()
