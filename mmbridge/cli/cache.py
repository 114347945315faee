"""``mmbridge data cache RECIPE [KEY=VALUE ...]``."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmbridge.cli.failure import tell
from mmbridge.cli.options import BatchSize, Device, Dtype, Json, require_writable
from mmbridge.cli.output import say, show_json, show_table

if TYPE_CHECKING:
    from mmbridge.feature_caching import Report
    from mmbridge.feature_gain import Gain


def cache(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name, or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides of the recipe, as for train.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write; features/<recipe> by default.")
    ] = None,
    stage: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only what this stage reads; may be repeated.")
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="Number format of the features on disk.")] = Dtype.BFLOAT16,
    processes: Annotated[int, typer.Option(min=1, help="How many processes will train together.")] = 1,
    anew: Annotated[bool, typer.Option("--anew", help="Replace features in DIR that are stale.")] = False,
    batch_size: BatchSize = 16,
    shard_mib: Annotated[int, typer.Option(min=1, help="Most MiB of features in one shard.")] = 256,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that decode; one a core by default.")] = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Write the features of all media that a recipe's stages will see, once.

    Stopped, the same command goes on. Training reads them with features.path=DIR.
    """
    from mmbridge.recipe_file import load

    loaded = load(recipe, overrides or [])
    loaded.require_stages(stage or [])
    folder = out or Path("features") / loaded.name
    require_writable(folder)

    import torch

    from mmbridge.data.feature_writing import Manner
    from mmbridge.device import pick
    from mmbridge.feature_caching import Caching

    target = pick(device)
    count = (os.cpu_count() or 1) if workers is None else workers
    manner = Manner(getattr(torch, dtype.value), batch_size, shard_mib * 2**20, count)
    caching = Caching(loaded, folder, stage or [], processes=processes, manner=manner, anew=anew)
    gains = caching.gains()
    if not json:
        _show_gains(gains)
    try:
        report = caching.write(target)
    except KeyboardInterrupt:
        tell(f"stopped; the same command goes on with {folder}")
        raise
    if json:
        show_json(_json(folder, gains, report))
    else:
        _show(folder, report)
    if report.skipped:
        tell(f"{len(report.skipped)} samples or media left out")
        raise typer.Exit(1)


def _show_gains(gains: "dict[str, Gain]") -> None:
    from mmbridge.feature_gain import WORTHWHILE

    rows = [
        (name, f"{gain.encoders / (gain.encoders + gain.rest or 1):.0%}", f"× {gain.ratio:.2f}")
        for name, gain in gains.items()
    ]
    show_table("", ("stage", "FLOPs of encoders", "faster at most"), rows)
    for name, gain in gains.items():
        if gain.ratio < WORTHWHILE:
            say(f"{name} gains less than 5 % from reading features: hardly worth the disk")


def _show(folder: Path, report: "Report") -> None:
    for problem in report.skipped:
        say(f"left out  {problem.line}")
    rows = [
        (name, f"{seen.drawn:,}", f"{seen.distinct:,}", f"{seen.drawn / (seen.distinct or 1):.1f}")
        for name, seen in report.seen.items()
    ]
    show_table("", ("read by", "media", "distinct", "times each"), rows)
    encoders = [
        (name, f"{each.media:,}", f"{each.new:,}", f"{each.shards:,}", f"{each.bytes / 1e6:,.1f} MB")
        for name, each in report.encoders.items()
    ]
    show_table("", ("encoder", "media", "new", "shards", "on disk"), encoders)
    say(f"train with features.path={folder}")


def _json(folder: Path, gains: "dict[str, Gain]", report: "Report") -> dict[str, object]:
    from dataclasses import asdict

    return {
        "out": str(folder),
        "encoders": {name: asdict(each) for name, each in report.encoders.items()},
        "seen": {name: asdict(each) for name, each in report.seen.items()},
        "gain": {name: round(each.ratio, 4) for name, each in gains.items()},
        "skipped": [problem.line for problem in report.skipped],
    }
