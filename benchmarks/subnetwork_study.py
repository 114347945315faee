"""What one sub-network for media and text is worth, and what repair brings: ``python benchmarks/subnetwork_study.py``.

Implicit Multimodal Alignment: On the Generalization of Frozen LLMs to Multimodal Inputs
Mustafa Shukor, Matthieu Cord, arXiv 2405.16700 (their α-SubNet)

Trains the quickstart bridge for every seed. At every sparsity it finds the weights that images, text and both activate,
and captions held-out scenes with the LLM cut down to what stays in all of these masks, to as many of the largest
weights and to as many random ones; then it trains the connector on under each, for as many steps and on the same
samples, and captions again. The whole LLM's connector trained on likewise says what those steps bring by themselves.
Writes ``results/subnetwork_study.json`` and ``.svg``. Stopped and started again it goes on with what is missing. What a
mask is above another is told scene by scene. Needs the extra ``plot``.
"""

import argparse
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from connector_study import difference
from first_bridge import Scores, over_seeds, spans, workers
from record import RESULTS, Record
from spans import Panel, Span, plot

from mmbridge import Bridge, Recipe
from mmbridge.alignment.weights.activated import activated
from mmbridge.data.world.source import WorldSource
from mmbridge.evaluation.bootstrap import Estimate
from mmbridge.evaluation.run import evaluate
from mmbridge.llm.weight_mask import WeightMask, masked
from mmbridge.recipes.subnetwork import SUBNETWORK, masks_of
from mmbridge.train import train

SPARSITIES = (0.3, 0.5, 0.7)
"""Of each mask that the sub-network is what is left of."""
MASKS = (SUBNETWORK, "magnitude", "random")
WHOLE = "whole LLM"
TRAINED = "trained"
"""The run folder of a seed's bridge."""
SAMPLES, SCENES = 128, 300
"""Training scenes that masks are found by, and held-out ones that are captioned."""
REPAIR = ("stages.instruct.steps=60", "stages.instruct.validation=null")
"""Of the stage that trains a connector on."""
WHEN = ("before", "after repair")


def whole(seed: int, folder: Path, changes: list[str]) -> dict[str, Any]:
    """The bridge of a seed, trained if it is not, and what its connector gains by training on."""
    train(Recipe.load("quickstart", f"seed={seed}", *changes), folder / TRAINED, resume=True)
    return {WHOLE: tried(folder, folder / WHOLE, None, seed, changes)}


def cut(seed: int, sparsity: float, folder: Path, changes: list[str]) -> dict[str, Any]:
    """All masks of a seed's bridge at a sparsity."""
    bridge = Bridge.from_pretrained(folder / TRAINED)
    found = activated(bridge, WorldSource("train", SAMPLES, 8, "caption"), SAMPLES, sparsity)
    masks = masks_of(bridge, found, seed)
    place, results = folder / f"sparsity {sparsity:g}", dict[str, Any]()
    for name in MASKS:
        masks[name].save(place / name / "mask.safetensors")
        results[name] = tried(folder, place / name, masks[name], seed, changes)
    agree = next(curve for curve in found.curves if curve.score == "iou" and curve.of == ("image", "text"))
    iou = {"mean": agree.mean.value, "chance": agree.chance[0], "control": [each.value for each in agree.control]}
    return {"sparsity of the sub-network": masks[SUBNETWORK].sparsity, "iou of image and text": iou, **results}


def tried(folder: Path, place: Path, mask: WeightMask | None, seed: int, changes: list[str]) -> dict[str, Scores]:
    """Captions of a seed's bridge under a mask, and again after its connector has been trained on."""
    bridge = Bridge.from_pretrained(folder / TRAINED)
    with nullcontext() if mask is None else masked(bridge.llm, mask):
        before = captions(bridge, place / WHEN[0])
    given = [f"seed={seed}", *changes, *REPAIR, f"stages.instruct.init={folder / TRAINED}"]
    given += [] if mask is None else [f"llm.mask={place / 'mask.safetensors'}"]
    repaired = train(Recipe.load("quickstart", *given), place / "repaired", stages=["instruct"], resume=True)
    return {WHEN[0]: before, WHEN[1]: captions(repaired, place / WHEN[1])}


def captions(bridge: Bridge, folder: Path) -> Scores:
    """Of held-out scenes; each stays in the folder."""
    source = WorldSource("test", SCENES, 6, "caption")
    report = evaluate(bridge, source, "caption", batch_size=128, count_flops=False)
    report.write_rows(folder / "captions.jsonl")
    return spans(report.metrics)


def differences(out: Path, seeds: list[int]) -> dict[str, Span]:
    """By how much captions under the sub-network are above those under other masks, and those after repair above those
    before."""
    found = {}
    for sparsity in SPARSITIES:
        places = [out / f"seed {seed}" / f"sparsity {sparsity:g}" for seed in seeds]
        for when in WHEN:
            for other in MASKS[1:]:
                pairs = [(place / SUBNETWORK / when, place / other / when) for place in places]
                found[f"sub-network above {other}, sparsity {sparsity:g}, {when}"] = over(pairs)
        for name in MASKS:
            pairs = [(place / name / WHEN[1], place / name / WHEN[0]) for place in places]
            found[f"{name}, sparsity {sparsity:g}: repair adds"] = over(pairs)
    pairs = [(out / f"seed {seed}" / WHOLE / WHEN[1], out / f"seed {seed}" / WHOLE / WHEN[0]) for seed in seeds]
    found[f"{WHOLE}: as many steps add"] = over(pairs)
    return found


def parts() -> list[str]:
    """What the study is made of: the whole LLM, and each sparsity."""
    return [WHOLE, *(f"sparsity {sparsity:g}" for sparsity in SPARSITIES)]


def over(pairs: list[tuple[Path, Path]]) -> Span:
    """Over the seeds."""
    return over_seeds([{"": {"": difference(*pair)}} for pair in pairs])[""][""]


def panels(figures: Mapping[str, Any]) -> list[Panel]:
    """Fact-F1 before and after repair, for every sparsity, as a picture."""
    found = []
    for sparsity in SPARSITIES:
        every, some = figures[f"{WHOLE}, all seeds"], figures[f"sparsity {sparsity:g}, all seeds"]
        of = {when: every[when] | some[when] for when in WHEN}
        found.append(Panel(f"fact-F1, masks of sparsity {sparsity:g}", of))
    return found


def told(figures: Mapping[str, Any]) -> list[str]:
    """The figures, for people."""
    lines = [f"{'fact-F1':<40}{WHEN[0]:<24}{WHEN[1]}"]
    for part in parts():
        found = figures[f"{part}, all seeds"]
        for name in found[WHEN[0]]:
            cells = "".join(f"{Estimate(*found[when][name])}    " for when in WHEN)
            lines.append(f"{name if name == part else f'{part}, {name}':<40}{cells}")
    for name, (value, low, high) in figures["differences"].items():
        lines.append(f"{name:<64}{value:+.3f} [{low:+.3f}, {high:+.3f}]")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--at-once", type=int, default=2, help="how many train side by side")
    parser.add_argument("--out", type=Path, default=Path("runs/subnetwork_study"), help="the run folders")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the recipe, on top")
    given = parser.parse_args()

    record, out = Record("subnetwork_study"), given.out.absolute()
    with workers(given.at_once) as pool:
        folders = {seed: out / f"seed {seed}" for seed in given.seeds}
        first = {f"{WHOLE}, seed {seed}": partial(whole, seed, at, given.set) for seed, at in folders.items()}
        then = {
            f"sparsity {sparsity:g}, seed {seed}": partial(cut, seed, sparsity, at, given.set)
            for sparsity in SPARSITIES
            for seed, at in folders.items()
        }
        for jobs in (first, then):
            record.complete(pool, jobs)
    for part in parts():
        runs = [record.figures[f"{part}, seed {seed}"] for seed in given.seeds]
        rows = (WHOLE,) if part == WHOLE else MASKS
        scores = [{when: {name: run[name][when]["fact_f1"] for name in rows} for when in WHEN} for run in runs]
        record.keep(f"{part}, all seeds", over_seeds(scores))
    record.keep("differences", differences(out, given.seeds))
    print("\n".join(told(record.figures)))
    plot(panels(record.figures), RESULTS / "subnetwork_study.svg")


if __name__ == "__main__":
    main()
