"""How well the quickstart bridge sees, over several seeds, with its controls: ``python benchmarks/first_bridge.py``.

Trains ``quickstart variant=long`` anew for every seed, measures it after each stage on held-out scenes, and writes
``results/first_bridge.json``. Stopped and started again it goes on with what is missing. A seed changes the connector's
first weights and the order of the data; scenes and questions of the test are the same for all, so that a span over the
seeds is one of training.
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from record import Record

from mmbridge import Bridge, Recipe
from mmbridge.data.sources import Source
from mmbridge.data.world.source import WorldSource
from mmbridge.evaluation.bootstrap import Estimate
from mmbridge.evaluation.chance import answer_chance, fact_chance
from mmbridge.evaluation.controls import ShuffledMedia, with_random_connectors
from mmbridge.evaluation.run import Task, evaluate
from mmbridge.train import train

SCENES: dict[Task, int] = {"caption": 500, "vqa": 80, "pope": 320}
"""Scenes a task: 500 captions, 640 questions of eight kinds, 640 POPE questions."""

Scores = dict[str, tuple[float, float, float]]
"""(value, low, high) by metric."""


def held_out(split: str, task: Task) -> Source:
    """Scenes that nothing was trained or chosen on."""
    return WorldSource(split, SCENES[task], 3, task)


def scores(bridge: Bridge, source: Source, task: Task) -> Scores:
    return spans(evaluate(bridge, source, task, batch_size=128, count_flops=False).metrics)


def spans(found: Mapping[str, Estimate]) -> Scores:
    """Estimates as plain numbers."""
    return {name: (score.value, score.low, score.high) for name, score in found.items()}


def after_align(bridge: Bridge) -> dict[str, Scores]:
    """What captions alone have taught, and the controls that must be at chance."""
    questions = held_out("test", "vqa")
    blank = with_random_connectors(bridge)
    return {
        "caption, test": scores(bridge, held_out("test", "caption"), "caption"),
        "caption, combinations": scores(bridge, held_out("combinations", "caption"), "caption"),
        "vqa, test": scores(bridge, questions, "vqa"),
        "vqa, shuffled images": scores(bridge, ShuffledMedia(questions), "vqa"),
        "caption, random connector": scores(blank, held_out("test", "caption"), "caption"),
        "vqa, random connector": scores(blank, questions, "vqa"),
    }


def after_instruct(bridge: Bridge) -> dict[str, Scores]:
    """What a finished bridge does."""
    questions, pope = held_out("test", "vqa"), held_out("test", "pope")
    return {
        "caption, test": scores(bridge, held_out("test", "caption"), "caption"),
        "caption, combinations": scores(bridge, held_out("combinations", "caption"), "caption"),
        "vqa, test": scores(bridge, questions, "vqa"),
        "vqa, combinations": scores(bridge, held_out("combinations", "vqa"), "vqa"),
        "vqa, shuffled images": scores(bridge, ShuffledMedia(questions), "vqa"),
        "pope, test": scores(bridge, pope, "pope"),
        "pope, shuffled images": scores(bridge, ShuffledMedia(pope), "pope"),
    }


STAGES: Mapping[str, Callable[[Bridge], dict[str, Scores]]] = {"align": after_align, "instruct": after_instruct}
"""The recipe's stages, and what is measured after each."""


def chance() -> dict[str, Scores]:
    """What a bridge that sees nothing scores."""
    questions, captions = held_out("test", "vqa"), held_out("test", "caption")
    answers = answer_chance([questions[i].truth for i in range(len(questions))])
    facts = fact_chance([captions[i].truth for i in range(len(captions))])
    return {
        name: {kind: (found.value, found.low, found.high) for kind, found in given.items()}
        for name, given in (("vqa", answers), ("caption", facts))
    }


def over_seeds(runs: Sequence[Mapping[str, Scores]]) -> dict[str, Scores]:
    """The mean over the seeds; its interval spans those of all seeds, from the lowest to the highest."""
    return {
        part: {
            metric: (
                sum(run[part][metric][0] for run in runs) / len(runs),
                min(run[part][metric][1] for run in runs),
                max(run[part][metric][2] for run in runs),
            )
            for metric in runs[0][part]
        }
        for part in runs[0]
    }


def trained(overrides: Sequence[str], out: Path, seed: int, stage: str) -> dict[str, Any]:
    """One stage of one seed, trained and measured."""
    began = time.monotonic()
    bridge = train(Recipe.load("quickstart", *overrides, f"seed={seed}"), out / f"seed-{seed}", stages=[stage])
    seconds = round(time.monotonic() - began, 1)
    return {"seconds of training": seconds, "scores": STAGES[stage](bridge)}


def workers(count: int) -> Executor:
    """Processes that share the cores: models this small gain little from a second thread, much from a second seed."""
    threads = max(1, (os.cpu_count() or 1) // count)
    return ProcessPoolExecutor(count, get_context("spawn"), torch.set_num_threads, (threads,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--at-once", type=int, default=3, help="how many seeds train side by side")
    parser.add_argument("--out", type=Path, default=Path("runs/first_bridge"), help="the run folders")
    parser.add_argument("--set", nargs="*", default=["variant=long"], metavar="KEY=VALUE", help="of the recipe")
    given = parser.parse_args()

    record = Record("first_bridge")
    with workers(given.at_once) as pool:
        work: dict[Future[dict[str, Any]], tuple[int, str]] = {}

        def go_on(seed: int) -> None:
            """The seed's next stage that is not in the record."""
            for stage in STAGES:
                if f"{stage}, seed {seed}" not in record.figures:
                    work[pool.submit(trained, given.set, given.out, seed, stage)] = seed, stage
                    return

        for seed in given.seeds:
            go_on(seed)
        while work:
            for done in wait(work, return_when=FIRST_COMPLETED).done:
                seed, stage = work.pop(done)
                record.keep(f"{stage}, seed {seed}", done.result())
                go_on(seed)
    for stage in STAGES:
        runs = [record.figures[f"{stage}, seed {seed}"]["scores"] for seed in given.seeds]
        record.keep(f"{stage}, all seeds", over_seeds(runs))
    record.keep("chance", chance())
    for stage in STAGES:
        print(f"after {stage}, seeds {given.seeds}:")
        for part, found in record.figures[f"{stage}, all seeds"].items():
            for metric, (value, low, high) in found.items():
                print(f"  {part:<28}{metric:<24}{value:.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
