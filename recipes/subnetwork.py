"""One sub-network of the LLM for media and text: ``python -m mmbridge.recipes.subnetwork BRIDGE DATA --out DIR``.

Implicit Multimodal Alignment: On the Generalization of Frozen LLMs to Multimodal Inputs
Mustafa Shukor, Matthieu Cord, arXiv 2405.16700 (their α-SubNet)

Finds the weights that each way of reading DATA activates (the perceptual tokens of each medium, text, both) and what
stays in all of these masks: the sub-network. Then captions DATA with each of them on the LLM, and with controls that
keep as many weights in every row as the sub-network does: the largest, and random ones. Masks go to DIR, one file each,
and the scores to DIR/scores.json.

A connector learns to live with a mask by training on with it; the command is told at the end.
"""

import argparse
import json
import shlex
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from statistics import fmean
from typing import Any

from mmbridge.alignment.weights.activated import Activated, activated
from mmbridge.alignment.weights.masks import magnitude, random, require_sparsity
from mmbridge.bridge import Bridge
from mmbridge.bridge_folder import RECIPE, find
from mmbridge.cli.failure import ending
from mmbridge.cli.options import require_writable
from mmbridge.cli.output import show_table
from mmbridge.data.formats import open_source
from mmbridge.data.sources import Source
from mmbridge.errors import MMBridgeError
from mmbridge.evaluation.bootstrap import Estimate
from mmbridge.evaluation.run import evaluate
from mmbridge.llm.weight_mask import WeightMask, intersection, masked

SUBNETWORK = "subnetwork"
SHOWN = ("fact_f1", "exact", "cider")

Masks = Mapping[str, WeightMask | None]


def masks_of(bridge: Bridge, found: Activated, seed: int) -> dict[str, WeightMask]:
    """Those found, the sub-network that they share, and its controls."""
    shared = intersection([*found.masks.values()], f"what stays in all of {', '.join(found.masks)}")
    controls = {"magnitude": magnitude(bridge.llm, shared), "random": random(bridge.llm, shared, seed)}
    return {**found.masks, SUBNETWORK: shared, **controls}


def scores(bridge: Bridge, source: Source, masks: Masks, given: argparse.Namespace) -> dict[str, dict[str, Estimate]]:
    """What captions are worth under each mask."""
    results = {}
    for name, mask in masks.items():
        with nullcontext() if mask is None else masked(bridge.llm, mask):
            size, limit = given.batch_size, given.limit
            report = evaluate(bridge, source, "caption", limit=limit, batch_size=size, count_flops=False)
        for failure in report.failed[:1]:
            print(f"{name}: {len(report.failed)} samples failed, first {failure.id}: {failure.error}")
        results[name] = dict(report.metrics)
    return results


def repair(bridge: Bridge, given: argparse.Namespace) -> str:
    """The command that trains the last stage's connectors on under the sub-network, or why there is none."""
    folder = find(given.bridge)
    if not (folder / RECIPE).is_file() or not bridge.recipe.stages:
        return "its recipe has no stages: write one with llm.mask to train its connector on"
    stage = bridge.stage or bridge.recipe.stages[0].name
    words = ["mmbridge", "train", folder / RECIPE, f"llm.mask={given.out / f'{SUBNETWORK}.safetensors'}"]
    words += [f"stages.{stage}.init={folder}", "--stage", stage, "--out", given.out / "repaired"]
    return shlex.join(map(str, words))


def measure(bridge: Bridge, given: argparse.Namespace) -> None:
    """Finds, writes, tries and prints what ``main`` has been asked for."""
    source = open_source(given.data, task="caption")
    calibration = source if given.calibration is None else open_source(given.calibration, task="caption")
    found = activated(bridge, calibration, given.samples, given.sparsity, given.batch_size)
    masks = masks_of(bridge, found, given.seed)
    given.out.mkdir(parents=True, exist_ok=True)
    for name, mask in masks.items():
        mask.save(given.out / f"{name}.safetensors")
    overall = found.matrices[0]
    names = [" ", *overall.columns]
    rows = [(name, *(f"{value:.3f}" for value in row)) for name, row in zip(overall.rows, overall.values, strict=True)]
    show_table(f"IoU of the weights that stay, chance {overall.chance:.3f}", names, rows)
    for curve in found.curves:
        if curve.control:
            control = fmean(each.value for each in curve.control)
            print(f"{' and '.join(curve.of)}: IoU {curve.mean}; with the second's norms dealt anew {control:.3f}")
    print()
    tried: Masks = {"none": None, **masks}
    results = scores(bridge, source, tried, given)
    shown = [metric for metric in SHOWN if metric in results["none"]]
    sparsity = {name: 0.0 if mask is None else mask.sparsity for name, mask in tried.items()}
    told = [
        (name, f"{sparsity[name]:.3f}", *(str(result[metric]) for metric in shown)) for name, result in results.items()
    ]
    show_table("captions", ("mask", "sparsity", *shown), told)
    written: dict[str, Any] = {
        name: {"sparsity": sparsity[name]} | {each: [of.value, of.low, of.high] for each, of in result.items()}
        for name, result in results.items()
    }
    iou = {"groups": overall.rows, "values": overall.values, "chance": overall.chance}
    (given.out / "scores.json").write_text(json.dumps({"masks": written, "iou": iou}, indent=2) + "\n")
    print(f"\nto repair: {repair(bridge, given)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bridge", metavar="BRIDGE", help="a bridge or run folder, a hub id")
    parser.add_argument("data", metavar="DATA", help="media with captions, as for mmbridge eval")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where masks and scores go")
    parser.add_argument("--sparsity", type=float, default=0.5, help="of each mask; the sub-network's is higher")
    parser.add_argument("--samples", type=int, default=128, help="how many are read to find the masks")
    parser.add_argument("--calibration", metavar="DATA", help="read these to find the masks, rather than DATA")
    parser.add_argument("--limit", type=int, help="caption at most so many samples")
    parser.add_argument("--batch-size", type=int, default=32, help="samples run at once")
    parser.add_argument("--seed", type=int, default=0, help="of the random mask")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ...; an accelerator where there is one by default")
    given = parser.parse_args()
    for name in ("samples", "limit", "batch_size"):
        if (value := getattr(given, name)) is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')}: expected at least 1, found {value}")
    try:
        require_sparsity(given.sparsity)
        require_writable(given.out)
        measure(Bridge.from_pretrained(given.bridge, device=given.device), given)
    except MMBridgeError as error:
        raise SystemExit(ending(error)) from None


if __name__ == "__main__":
    main()
