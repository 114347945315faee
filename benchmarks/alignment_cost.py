"""What measuring alignment costs beside the forward passes it reads: ``python benchmarks/alignment_cost.py``.

1,000 scenes with their captions through the quickstart's bridge (encoder, connector and LLM; media are decoded before,
logits are not made): plain forward passes, the same with the default scores (IMA, cones, gap, norms, change over a
block) and their intervals, paired. Then every optional score once, as the verb tells its factor, and the memory beside
the model. Writes ``results/alignment_cost.json``.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import get_args

import torch
from paired import paired
from record import Record
from torch import Tensor

from mmbridge import Bridge, Recipe
from mmbridge.alignment.default_scores import default_curves
from mmbridge.alignment.measure import STRIDES, PooledName, TokensName, measure
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
    sums, number = RunningSums([stride for stride in STRIDES if stride <= len(bridge.llm.layers)]), 0
    for batch in batches:
        context = bridge.spliced(batch, "right")
        groups = BatchGroups(positions(context, "said"), range(number, number + len(batch)))

        def reader(site: Site, states: Tensor, groups: BatchGroups = groups) -> None:
            sums.read(SiteStates(site, states, groups))

        read_states(bridge.llm, context, ["input", "block"], reader)
        number += len(batch)
    return sums, len([*default_curves(sums, sums)])


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
    figures = paired(ways, given.rounds)
    for found in figures.values():
        ratio, low, high = found.pop("speed-up")
        found["× plain"] = [1 / ratio, 1 / high, 1 / low]
    record.keep("paired", figures)
    for name, found in figures.items():
        ratio, low, high = found["× plain"]
        print(f"{name:<40}{found['seconds']:>9.3f} s   × {ratio:.2f} [{low:.2f}, {high:.2f}]")
    memory = with_scores(bridge, batches)[0].nbytes
    report, _ = measure(
        bridge, source, "quickstart", optional=(*get_args(TokensName), *get_args(PooledName), "weights")
    )
    record.keep("optional scores, × plain", dict(report.cost))
    record.keep("memory, MiB", {"default": memory / 2**20, "with all optional scores": report.about["memory, MiB"]})
    for name, factor in report.cost.items():
        print(f"{name:<40}× {factor:.2f}")
    print(f"memory: {memory / 2**20:.1f} MiB, with all optional scores {report.about['memory, MiB']} MiB")


if __name__ == "__main__":
    main()
