"""How well bridges read handwritten digits, over several seeds: ``python benchmarks/digits.py``.

Trains the recipe ``digits`` for every seed, measures it on the held-out fifth of the scans, and writes
``results/digits.json``. Stopped and started again it goes on with what is missing. Needs the extra ``digits``.
"""

import argparse
from functools import partial
from pathlib import Path

from first_bridge import Scores, over_seeds, scores, workers
from record import Record

from mmbridge import Recipe
from mmbridge.data.digits import digits
from mmbridge.train import train


def measured(out: Path, seed: int) -> dict[str, Scores]:
    """One seed, trained and measured: digits read out in words, and questions about them."""
    bridge = train(Recipe.load("digits", f"seed={seed}"), out / f"seed-{seed}")
    return {
        "caption": scores(bridge, digits("test", "caption"), "caption"),
        "vqa": scores(bridge, digits("test", "vqa"), "vqa"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--at-once", type=int, default=2, help="how many seeds train side by side")
    parser.add_argument("--out", type=Path, default=Path("runs/digits_seeds"), help="the run folders")
    given = parser.parse_args()

    record = Record("digits")
    with workers(given.at_once) as pool:
        record.complete(pool, {f"seed {seed}": partial(measured, given.out, seed) for seed in given.seeds})
    record.keep("all seeds", over_seeds([record.figures[f"seed {seed}"] for seed in given.seeds]))
    for task, found in record.figures["all seeds"].items():
        for metric, (value, low, high) in found.items():
            print(f"{task:<10}{metric:<24}{value:.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
