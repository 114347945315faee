"""Does what is claimed of implicit alignment hold for our own bridges? ``python benchmarks/alignment_study.py``.

Implicit Multimodal Alignment: On the Generalization of Frozen LLMs to Multimodal Inputs
Mustafa Shukor, Matthieu Cord, arXiv 2405.16700

Trains every variant of a recipe (encoders × connectors) through its stages (training time), measures the bridge before
the first and after each, and writes ``results/alignment_study.json`` and a page that tells what of the paper's claims
reproduces (``alignment_study_page.py``). Stopped and started again it goes on with what is missing.

``--recipe`` and ``--data`` take a recipe of one's own, with variants and stages such as here, and data sets whose truth
is known for captions, questions and existence: the study is the same for models of a hub.
"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import alignment_study_page
import yaml
from alignment_claims import claims
from first_bridge import scores, workers
from record import RESULTS, Record
from skipped import without_blocks

from mmbridge import Bridge, Recipe
from mmbridge.alignment.measure import measure
from mmbridge.alignment.weights.activated import activated
from mmbridge.data.formats import open_source
from mmbridge.data.sources import Source
from mmbridge.data.world.source import WorldSource
from mmbridge.evaluation.run import Task
from mmbridge.train import train

RECIPE = Path(__file__).with_name("alignment_study.yaml")
SCENES: Mapping[Task, int] = {"caption": 250, "vqa": 40, "pope": 120}
ASKED: Mapping[Task, int] = {"caption": 1, "vqa": 8, "pope": 2}
"""Held-out scenes of each task and what is asked of each: 250 captions, 320 questions, 240 about existence. Of data
that are given, as many samples."""
ALIGNED = 500
"""Samples that alignment is measured of."""


@dataclass(frozen=True, slots=True)
class Data:
    """``folder`` holds data sets named caption, vqa and pope; without one, the embedded world's scenes are read."""

    folder: Path | None

    def __call__(self, task: Task, count: int) -> Source:
        if self.folder is None:
            return WorldSource("test", count, 5, task)
        return open_source(self.folder / task, task=task, limit=count * ASKED[task])


def measured(bridge: Bridge, data: Data) -> dict[str, Any]:
    """Alignment and accuracy of one bridge."""
    report, _ = measure(
        bridge, data("caption", ALIGNED), "", limit=ALIGNED, optional=("centred", "neighbours", "kernels")
    )
    found = {task: scores(bridge, data(task, count), task) for task, count in SCENES.items()}
    plain = report.to_dict()
    return {"curves": plain["curves"], "scalars": plain["scalars"], "scores": found}


def in_depth(bridge: Bridge, data: Data) -> dict[str, Any]:
    """Of a finished bridge: which weights it uses, and what captions lose where a block passes tokens by."""
    used = activated(bridge, data("caption", 128))
    source = data("caption", SCENES["caption"])

    def facts() -> tuple[float, float, float]:
        found = scores(bridge, source, "caption")
        return found["fact_f1" if "fact_f1" in found else "cider"]

    skipped: dict[str, dict[int, tuple[float, float, float]]] = {"perceptual": {}, "text": {}}
    for side, by_depth in skipped.items():
        for depth in range(1, len(bridge.llm.layers) + 1):
            with without_blocks(bridge.llm, [depth], perceptual=side == "perceptual"):
                by_depth[depth] = facts()
    weights = [
        {"of": each.of, "mean": each.mean.value, "chance": each.chance[0], "control": [c.value for c in each.control],
         "values": [v.value for v in each.values]}
        for each in used.curves if each.score == "iou"
    ]  # fmt: skip
    return {"whole": facts(), "skipped": skipped, "iou": weights}


def of_variant(recipe: Path, variant: str, seed: int, out: Path, data: Data) -> dict[str, Any]:
    """All bridges of a variant, by the steps they were trained for, and the last one in depth."""
    chosen = Recipe.load(recipe, f"variant={variant}", f"seed={seed}")
    began = time.monotonic()
    train(chosen, out, resume=True)
    seconds, found, steps = time.monotonic() - began, {}, 0
    found["0"] = measured(Bridge(chosen), data)
    for stage in chosen.stages:
        bridge = Bridge.from_pretrained(out / "stages" / stage.name)
        steps += bridge.metrics["steps"]
        found[str(steps)] = measured(bridge, data)
    return {"seconds of training": seconds, "bridges": found, "in depth": in_depth(bridge, data)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--data", type=Path, help="a folder of data sets named caption, vqa and pope")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--at-once", type=int, default=2, help="how many train side by side")
    parser.add_argument("--out", type=Path, default=Path("runs/alignment_study"), help="the run folders")
    parser.add_argument("--page", type=Path, default=RESULTS / "alignment_study.html")
    given = parser.parse_args()

    record, began = Record("alignment_study"), time.monotonic()
    variants = yaml.safe_load(given.recipe.read_text())["variants"]
    jobs = {
        (name := f"{variant}, seed {seed}"): partial(
            of_variant, given.recipe, variant, seed, given.out / name, Data(given.data)
        )
        for seed in given.seeds
        for variant in variants
    }
    with workers(given.at_once) as pool:
        found = record.complete(pool, jobs)
    if found:
        spent = record.figures.get("seconds", 0.0)
        record.keep("seconds", round(spent + time.monotonic() - began, 1))
    record.keep("claims", claims({name: record.figures[name] for name in jobs}))
    print("\n".join(alignment_study_page.told(record.figures["claims"])))
    alignment_study_page.write(record.figures, given.page)


if __name__ == "__main__":
    main()
