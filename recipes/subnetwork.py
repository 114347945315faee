"""One sub-network of the LLM for media and text: ``python -m mmbridge.recipes.subnetwork BRIDGE DATA ...``.

Implicit Multimodal Alignment: On the Generalization of Frozen LLMs to Multimodal Inputs
Mustafa Shukor, Matthieu Cord, arXiv 2405.16700 (their α-SubNet)

Captions DATA, then finds the weights that each way of reading other data activates (the perceptual tokens of each
medium, text, both) and what stays in all of these masks: the sub-network. Then captions DATA with each of them on the
LLM, and with controls that keep as many weights in every row as the sub-network does: the largest, and random ones.
Masks go to DIR, one file each, and the scores to DIR/scores.json. Samples that cannot be used are told, and the exit
code is then 1.

A connector learns to live with a mask by training on with it; the command is told at the end.
"""

import argparse
import json
import shlex
from contextlib import nullcontext
from pathlib import Path
from statistics import fmean

from mmbridge.alignment.weights.activated import Activated, activated
from mmbridge.alignment.weights.masks import magnitude, random, require_sparsity
from mmbridge.bridge import Bridge
from mmbridge.bridge_folder import RECIPE, find
from mmbridge.cli.failure import ending, tell
from mmbridge.cli.options import require_writable
from mmbridge.cli.output import show_table
from mmbridge.data.formats import open_source
from mmbridge.data.sources import Source
from mmbridge.errors import MMBridgeError, UserError
from mmbridge.evaluation.report import Failure, Report
from mmbridge.evaluation.run import evaluate
from mmbridge.llm.weight_mask import WeightMask, intersection, masked
from mmbridge.whole_file import write_whole

SUBNETWORK = "subnetwork"
SHOWN = ("fact_f1", "exact", "cider")


def masks_of(bridge: Bridge, found: Activated, seed: int) -> dict[str, WeightMask]:
    """Those found, the sub-network that they share, and its controls."""
    shared = intersection([*found.masks.values()], f"what stays in all of {', '.join(found.masks)}")
    controls = {"magnitude": magnitude(bridge.llm, shared), "random": random(bridge.llm, shared, seed)}
    return {**found.masks, SUBNETWORK: shared, **controls}


def captions(bridge: Bridge, source: Source, mask: WeightMask | None, given: argparse.Namespace) -> Report:
    """What they are worth under a mask."""
    with nullcontext() if mask is None else masked(bridge.llm, mask):
        return evaluate(bridge, source, "caption", limit=given.limit, batch_size=given.batch_size, count_flops=False)


def repair(bridge: Bridge, given: argparse.Namespace) -> str:
    """The command that trains the last stage's connectors on under the sub-network, or why there is none."""
    folder = find(given.bridge)
    if not (folder / RECIPE).is_file() or not bridge.recipe.stages:
        return "its recipe has no stages: write one with llm.mask to train its connector on"
    stage = bridge.stage or bridge.recipe.stages[0].name
    words = ["mmbridge", "train", folder / RECIPE, f"llm.mask={given.out / f'{SUBNETWORK}.safetensors'}"]
    words += [f"stages.{stage}.init={folder}", "--stage", stage, "--out", given.out / "repaired"]
    return shlex.join(map(str, words))


def measure(bridge: Bridge, given: argparse.Namespace) -> int:
    """Finds, writes, tries and prints what ``main`` has been asked for; how many samples could not be used."""
    source = open_source(given.data, task="caption")
    calibration = open_source(given.calibration, task="caption")
    if Path(given.calibration).resolve() == Path(given.data).resolve():
        raise UserError("--calibration", "expected other data than those that are captioned, found the same")
    whole, failed = captions(bridge, source, None, given), dict[int, Failure]()
    found = activated(bridge, calibration, given.samples, given.sparsity, given.batch_size, failed=failed)
    lost = {failure.id: failure.error for failure in (*whole.failed, *failed.values())}
    for why in lost.values():
        tell(why)
    masks = masks_of(bridge, found, given.seed)
    for name, mask in masks.items():
        mask.save(given.out / f"{name}.safetensors")
    overlap = found.matrices[0]
    names = [" ", *overlap.columns]
    rows = [(name, *(f"{value:.3f}" for value in row)) for name, row in zip(overlap.rows, overlap.values, strict=True)]
    show_table(f"IoU of the weights that stay, chance {overlap.chance:.3f}", names, rows)
    for curve in found.curves:
        if curve.control:
            control = fmean(each.value for each in curve.control)
            print(f"{' and '.join(curve.of)}: IoU {curve.mean}; with the second's norms dealt anew {control:.3f}")
    print()
    sparsity = {"none": 0.0} | {name: mask.sparsity for name, mask in masks.items()}
    results = {"none": whole.metrics}
    results |= {name: captions(bridge, source, mask, given).metrics for name, mask in masks.items()}
    shown = [metric for metric in SHOWN if metric in whole.metrics]
    told = [
        (name, f"{sparsity[name]:.3f}", *(str(result[metric]) for metric in shown)) for name, result in results.items()
    ]
    show_table("captions", ("mask", "sparsity", *shown), told)
    written = {
        name: {"sparsity": sparsity[name]} | {each: [of.value, of.low, of.high] for each, of in result.items()}
        for name, result in results.items()
    }
    iou = {"groups": overlap.rows, "values": overlap.values, "chance": overlap.chance}
    write_whole(given.out / "scores.json", json.dumps({"masks": written, "iou": iou}, indent=2) + "\n")
    print(f"\nto repair: {repair(bridge, given)}")
    return len(lost)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bridge", metavar="BRIDGE", help="a bridge or run folder, a hub id")
    parser.add_argument("data", metavar="DATA", help="media with captions, as for mmbridge eval")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where masks and scores go")
    parser.add_argument("--sparsity", type=float, default=0.5, help="of each mask; the sub-network's is higher")
    parser.add_argument("--samples", type=int, default=128, help="how many are read to find the masks")
    parser.add_argument(
        "--calibration", metavar="DATA", required=True, help="read these, which are no part of DATA, to find the masks"
    )
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
        lost = measure(Bridge.from_pretrained(given.bridge, device=given.device), given)
    except MMBridgeError as error:
        raise SystemExit(ending(error)) from None
    if lost:
        tell(f"{lost} samples were left out")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
