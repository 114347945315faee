"""``make demo``: trains the quickstart bridge on this machine, then measures it on scenes it has never seen.

Prints a few captions and answers beside the truth, every score beside its ceilings, and how well perceptual tokens are
aligned with text inside the LLM, and writes ``report.json``.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from mmbridge.alignment import measure as alignment
from mmbridge.alignment.report import AlignmentReport, Curve
from mmbridge.bridge import Bridge
from mmbridge.data.world.source import WorldSource
from mmbridge.evaluation.report import Report
from mmbridge.evaluation.run import Task, evaluate, question
from mmbridge.recipe import Recipe

SCENES = {"caption": 500, "vqa": 64, "pope": 256}
"""Held-out scenes measured for each task: one caption, eight questions and two POPE questions a scene."""


def measure(bridge: Bridge) -> dict[Task, Report]:
    """The bridge's scores on scenes of the ``test`` split."""
    return {
        task: evaluate(bridge, WorldSource("test", SCENES[task], 0, task), task, batch_size=128)
        for task in ("caption", "vqa", "pope")
    }


def show(bridge: Bridge, scenes: int = 3) -> None:
    """A few held-out scenes: what the bridge says, and what is true."""
    captions, questions = (WorldSource("combinations", scenes, 0, task) for task in ("caption", "vqa"))
    for index in range(scenes):
        sample = captions[index]
        print(f"\n  truth    {sample.truth['caption']}")
        print(f"  caption  {bridge.generate([question(sample)])[0].text}")
        asked = questions[8 * index]
        answer = bridge.generate([question(asked)])[0].text
        print(f"  ask      {asked.truth['question']} {answer} (truth: {asked.truth['answers'][0]})")


def aligned(bridge: Bridge) -> AlignmentReport:
    """Alignment inside the LLM, on the scenes that are captioned."""
    source = WorldSource("test", SCENES["caption"], 0, "caption")
    return alignment.measure(bridge, source, "demo", batch_size=128)[0]


def matched(report: AlignmentReport) -> tuple[Curve, float]:
    """IMA of matched pairs, and the mean over depth of its control."""
    curve = report.curve("ima_matched", "image", "text")
    return curve, sum(each.value for each in curve.control) / len(curve.control)


def summary(reports: dict[Task, Report], curve: Curve, control: float, seconds: float) -> dict[str, Any]:
    """What ``report.json`` holds."""
    figures = {"ima_matched": curve.mean.value, "control": control, "by_depth": [each.value for each in curve.values]}
    found: dict[str, Any] = {"alignment": figures}
    for task, report in reports.items():
        kept = report.to_dict()
        found[task] = {"n": report.n, **kept["metrics"], "intervals": kept["intervals"]}
    return found | {"ceilings": dict(reports["caption"].ceilings), "seconds": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="the run folder")
    parser.add_argument("--report", type=Path, default=Path("report.json"))
    given = parser.parse_args()

    began = time.monotonic()
    bridge = Recipe.load("quickstart").train(out=given.out)
    reports, inside = measure(bridge), aligned(bridge)
    seconds = time.monotonic() - began
    print("\nOn held-out scenes (attribute combinations never shown in training):")
    show(bridge)
    print("\nOn held-out scenes of the test split:")
    for report in reports.values():
        print(report.render())
    curve, control = matched(inside)
    told = "cosine of perceptual tokens with their caption inside the LLM (implicit alignment, mean over depth)"
    print(f"{told}: {curve.mean}, with captions of other scenes {control:.3f}")
    given.report.write_text(json.dumps(summary(reports, curve, control, seconds), indent=2) + "\n")
    print(f"\n{seconds:.0f} seconds. The bridge is in {given.out / 'bridge'}, the figures are in {given.report}.")


if __name__ == "__main__":
    main()
