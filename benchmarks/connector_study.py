"""Connectors side by side, over several seeds, from few scenes and from all: ``python benchmarks/connector_study.py``.

Trains every variant of ``connector_study.yaml`` on as many samples, measures captions of held-out scenes, retrieval
among them and visual semantic arithmetic, and writes ``results/connector_study.json`` and ``.svg``. Media and texts are
compared after the stage that trains their space, where a way has one: captions move it. Stopped and started again it
goes on with what is missing. A seed changes first weights and the order of the data; the scenes of the test are the
same for all, so that what a way adds to another is told scene by scene. Needs the extra ``plot``.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from first_bridge import Scores, over_seeds, spans, workers
from record import RESULTS, Record
from spans import Panel, plot

from mmbridge import Bridge, Recipe
from mmbridge.data.world.language import parse_facts
from mmbridge.data.world.source import WorldSource
from mmbridge.evaluation.bootstrap import Estimate, Floats, estimate
from mmbridge.evaluation.facts import as_facts, f1, fact_counts
from mmbridge.evaluation.retrieval import retrieve
from mmbridge.evaluation.run import evaluate
from mmbridge.recipes import world_arithmetic
from mmbridge.spaces import space_of
from mmbridge.train import train

RECIPE = Path(__file__).with_name("connector_study.yaml")
WAYS = ("linear", "assignment", "mlp", "qformer", "qformer-represent", "qformer-more")
"""Variants of the recipe."""
DATA = {"1,000 scenes": 1000, "200,000 scenes": 200_000}
"""How many there are to learn from, in every stage."""
ADDS = (("assignment", "linear"), ("qformer-represent", "qformer"), ("qformer-more", "qformer"))
"""What has something more, and what has not."""
SCENES = 500
"""Of the test, each with one caption."""
QUERIES, STEP, QUERIES_SEED = 1000, 0.5, 11
"""Of the arithmetic: how many, the scale of the step from word to word (chosen on other queries), and their seed."""
SPACE_STAGE = "represent"
"""The stage after which media and texts are compared, in ways that have it; elsewhere it is the last."""


def overrides(way: str, count: int, seed: int) -> list[str]:
    """Of the recipe, for one way to learn from so many scenes."""
    stages = Recipe.load(RECIPE, f"variant={way}").stages
    return [f"variant={way}", f"seed={seed}", *(f"stages.{stage.name}.data.mix.0.count={count}" for stage in stages)]


def measured(changes: Sequence[str], folder: Path) -> dict[str, Any]:
    """One run, trained if it is not, and measured; its captions stay beside it."""
    bridge = train(Recipe.load(RECIPE, *changes), folder, resume=True)
    done = [json.loads((each / "metrics.json").read_text()) for each in sorted((folder / "stages").iterdir())]
    test = WorldSource("test", SCENES, 4, "caption")
    captions = evaluate(bridge, test, "caption", batch_size=128, count_flops=False)
    captions.write_rows(folder / "captions.jsonl")
    apart = folder / "stages" / SPACE_STAGE
    compared = Bridge.from_pretrained(apart) if apart.exists() else bridge
    found = retrieve(compared, test, batch_size=128, count_flops=False)
    return {
        "scores": {
            "captions": spans(captions.metrics),
            "retrieval": spans(found.metrics),
            "arithmetic": arithmetic(compared),
        },
        "chance": dict(found.chance) | {"right": 1 / len(world_arithmetic.THINGS)},
        "space": found.about["space"],
        "compared after": compared.stage,
        "perceptual tokens": captions.perceptual_tokens,
        "trained parameters": sum(each.numel() for each in bridge.connectors.parameters()),
        "executed FLOPs": sum(stage["executed_flops"] for stage in done),
    }


def arithmetic(bridge: Bridge) -> Scores:
    """What of a scene less a word plus another is found, and what without one of them."""
    queries = world_arithmetic.drawn(QUERIES, QUERIES_SEED)
    answers = world_arithmetic.answered(bridge, space_of(bridge), queries, STEP, QUERIES_SEED)
    right = {name: world_arithmetic.scores(queries, found)["right"] for name, found in answers.found.items()}
    named = {"right": right.pop("scene - old + new")} | {f"right, {name}": score for name, score in right.items()}
    return spans(named)


def counts(folder: Path) -> Floats:
    """(N, 3), as ``fact_counts``, of a run's captions."""
    rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    said, true = [parse_facts(row["prediction"]) for row in rows], [as_facts(row["truth"]["facts"]) for row in rows]
    return fact_counts(said, true)


def difference(more: Path, less: Path) -> tuple[float, float, float]:
    """By how much the fact-F1 of a run is above another's, over the same scenes."""
    both = np.concatenate([counts(more), counts(less)], axis=1)
    found = estimate(both, lambda sums: f1(sums[..., :3]) - f1(sums[..., 3:]))
    return found.value, found.low, found.high


def told(figures: Mapping[str, Any]) -> list[str]:
    """The table, for people."""
    lines = [f"{'':<38}{'fact-F1':<24}{'recall@1, image to text':<24}{'text to image':<24}arithmetic"]
    for name, each in figures.items():
        if name.endswith("all seeds"):
            shown = [each["captions"]["fact_f1"]]
            shown += [each["retrieval"][f"recall@1/{way}"] for way in ("image_to_text", "text_to_image")]
            shown.append(each["arithmetic"]["right"])
            cells = "".join(f"{Estimate(*span)}   " for span in shown)
            lines.append(f"{name.removesuffix(', all seeds'):<38}{cells}")
    for name, (value, low, high) in figures["what is added"].items():
        lines.append(f"{name:<62}{value:+.3f} [{low:+.3f}, {high:+.3f}]")
    return lines


PANELS = {
    "fact-F1 of captions": ("captions", "fact_f1"),
    "recall@1, image to text": ("retrieval", "recall@1/image_to_text"),
    "recall@1, text to image": ("retrieval", "recall@1/text_to_image"),
    "semantic arithmetic": ("arithmetic", "right"),
}


def panels(figures: Mapping[str, Any]) -> list[Panel]:
    """The table, as a picture."""
    chance = next(each["chance"] for name, each in figures.items() if "seed " in name)
    return [
        Panel(
            title,
            {amount: {way: figures[f"{way}, {amount}, all seeds"][part][metric] for way in WAYS} for amount in DATA},
            chance.get(metric),
        )
        for title, (part, metric) in PANELS.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--at-once", type=int, default=2, help="how many train side by side")
    parser.add_argument("--out", type=Path, default=Path("runs/connector_study"), help="the run folders")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the recipe, on top")
    given = parser.parse_args()

    record = Record("connector_study")
    runs = {
        (name := f"{way}, {amount}, seed {seed}"): partial(
            measured, [*overrides(way, count, seed), *given.set], given.out / name
        )
        for seed in given.seeds
        for amount, count in DATA.items()
        for way in WAYS
    }
    with workers(given.at_once) as pool:
        record.complete(pool, runs)
    for amount in DATA:
        for way in WAYS:
            found = [record.figures[f"{way}, {amount}, seed {seed}"]["scores"] for seed in given.seeds]
            record.keep(f"{way}, {amount}, all seeds", over_seeds(found))
    added = {}
    for amount in DATA:
        for more, less in ADDS:
            pairs = [[given.out / f"{way}, {amount}, seed {seed}" for way in (more, less)] for seed in given.seeds]
            over = over_seeds([{"": {"": difference(*pair)}} for pair in pairs])
            added[f"{more} above {less}, {amount}: fact-F1"] = over[""][""]
    record.keep("what is added", added)
    print("\n".join(told(record.figures)))
    plot(panels(record.figures), RESULTS / "connector_study.svg")


if __name__ == "__main__":
    main()
