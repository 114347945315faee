"""How costs grow with size: ``python benchmarks/growth.py``.

Opening shards and files of rows, the order of a mixture, and training steps against batch, length and processes: CPU
seconds and memory, medians of runs in processes of their own. The exponent of each is the slope of its upper half on
logarithmic axes. Writes ``results/growth.json`` and the plot ``results/growth.svg``. Stopped and started again it goes
on with what is missing.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from cost import median
from curve import Curve, plot
from data_growth import LLAVA, PER_SHARD, mixed, opened, write_rows, write_shards
from random_llava import SHAPES, Shape
from record import Record
from step_growth import step, step_in

from mmbridge.data.formats import METADATA

SIZES: Mapping[str, tuple[int, ...]] = {
    "shards": (1, 10, 100, 1000, 10_000),
    "rows": (1000, 10_000, 100_000, 1_000_000),
    "samples": (1000, 10_000, 100_000, 1_000_000, 10_000_000),
    "batch": (1, 2, 4, 8, 16),
    "answer": (20, 40, 80, 160, 320),
    "processes": (1, 2),
}
GLOBAL_BATCH = 8


Made = Callable[[Path, int], Curve]
"""Makes a curve, with a folder to work in and the number of repeats."""


def shards(folder: Path, repeats: int) -> Curve:
    """Opening shards of ``PER_SHARD`` samples, for the first time and again."""
    write_shards(folder, max(SIZES["shards"]))
    points = {}
    for count in SIZES["shards"]:
        path, cache = f"{folder}/{{00000..{count - 1:05d}}}.tar", str(folder / f"cache-{count}")
        first = median(repeats, opened, path, None)
        median(1, opened, path, cache)
        again = median(repeats, opened, path, cache)
        points[count] = {
            "opening, s": first["seconds"],
            "opening again, s": again["seconds"],
            "opening, bytes": first["bytes"],
            "opening again, bytes": again["bytes"],
            "open files": first["open files"],
        }
    return Curve.through(f"shards of {PER_SHARD}", points)


def rows(folder: Path, repeats: int) -> Curve:
    """Opening a ``metadata.jsonl`` and a LLaVA JSON."""
    points: dict[int, dict[str, float]] = {count: {} for count in SIZES["rows"]}
    for form, (count, point) in product((METADATA, LLAVA), points.items()):
        path = write_rows(folder / form, count)
        found = median(repeats, opened, str(path), None)
        point |= {f"{form}, s": found["seconds"], f"{form}, bytes": found["bytes"]}
        path.unlink()
    return Curve.through("rows", points)


def mixture(sources: int) -> Made:
    """The order of so many sources mixed."""
    return lambda folder, repeats: Curve.through(
        "samples", {count: median(repeats, mixed, count, sources) for count in SIZES["samples"]}
    )


def steps(of: str, shaped: Callable[[int], Shape]) -> Made:
    """A training step against one of the shape's sizes."""
    return lambda folder, repeats: Curve.through(of, {size: median(repeats, step, shaped(size)) for size in SIZES[of]})


def processes(shape: Shape) -> Made:
    """A training step on the same batch in several processes."""
    whole = replace(shape, samples=GLOBAL_BATCH)
    return lambda folder, repeats: Curve.through(
        "processes", {count: median(repeats, step_in, count, whole) for count in SIZES["processes"]}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    shape = SHAPES[given.shape]
    curves: dict[str, Made] = {
        "opening shards": shards,
        "opening rows": rows,
        "order of one source": mixture(1),
        "order of three sources": mixture(3),
        f"a step of the shape {given.shape}": steps("batch", lambda size: replace(shape, samples=size)),
        "its step against the answer's tokens": steps("answer", lambda size: replace(shape, answer=size)),
        f"its step of {GLOBAL_BATCH} samples in processes": processes(shape),
    }
    results = Record("growth")
    for title, make in curves.items():
        if title not in results.figures:
            with TemporaryDirectory() as folder:
                results.keep(title, make(Path(folder), given.repeats).figures())
        print(title, *Curve.of_figures(results.figures[title]).lines(), sep="\n", flush=True)
    plot({title: Curve.of_figures(results.figures[title]) for title in curves}, results.path.with_suffix(".svg"))


if __name__ == "__main__":
    main()
