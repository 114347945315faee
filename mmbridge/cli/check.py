"""``mmbridge data check DATA``."""

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmbridge.cli.failure import tell
from mmbridge.cli.options import DataFormat, DataPath, Json, MediaRoot
from mmbridge.cli.output import say, show_json, show_table
from mmbridge.errors import UserError

if TYPE_CHECKING:
    from mmbridge.bridge import Bridge
    from mmbridge.data.check import Findings
    from mmbridge.data.sources import DataSet

_SHOWN = 20
"""Problems that are printed one by one."""
_ALONE = 64
"""Rows that one process reads in the time it takes to start another."""


def check(
    data: DataPath,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides of the recipe, as for train.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(metavar="RECIPE", help="Also measure every sample for it.")] = None,
    stage: Annotated[
        str | None, typer.Option(metavar="NAME", help="Write prompts as this stage does; else as the LLM's section.")
    ] = None,
    format: DataFormat = None,
    media_root: MediaRoot = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that read; one a core by default.")] = None,
    json: Json = False,
) -> None:
    """Read every row and decode every medium of a data set, and say what is wrong with it.

    With a recipe, also say how long each caption, question and conversation is in the LLM's input.
    """
    changes = overrides or []
    if recipe is None and (given := ["--stage"] * (stage is not None) + changes):
        raise UserError(given[0], "expected a recipe that it belongs to, found none", "name one with --recipe")

    from mmbridge.data.formats import open_records

    records = open_records(data, format.value if format else None, media_root, late=True)
    bridge = None if recipe is None else _bridge(recipe, stage, changes)

    from mmbridge.data.check import check as run

    useful = min(os.cpu_count() or 1, len(records) // _ALONE)
    findings = run(records, bridge.collate() if bridge else None, useful if workers is None else workers)
    report = _report(data, findings, None if bridge is None else _first(records, findings, bridge))
    if json:
        show_json(report)
    else:
        _show(report)
    if findings.bad:
        tell(f"{findings.bad} of {findings.records} rows have something wrong with them")
        raise typer.Exit(1)


def _bridge(recipe: str, stage: str | None, overrides: list[str]) -> "Bridge":
    """The recipe's bridge as training begins with it: how long a sample is depends on all its parts."""
    from mmbridge.recipe_file import load

    loaded = load(recipe, overrides)
    template = None
    if stage is not None:
        loaded.require_stages([stage])
        (template,) = (each.template for each in loaded.stages if each.name == stage)

    from mmbridge.bridge import Bridge

    return Bridge(loaded.without_features(), template)


def _first(records: "DataSet", findings: "Findings", bridge: "Bridge") -> str | None:
    """The first sample of the first good row as the LLM reads it, what it learns to say between ⟦ and ⟧."""
    if findings.first is None:
        return None

    from mmbridge.data.sources import RecordSource
    from mmbridge.sample_view import decoded

    source = RecordSource([records[findings.first]], "all")
    return decoded(bridge.collate()([source[0]]), bridge).plain


def _report(data: str, findings: "Findings", sample: str | None) -> dict[str, Any]:
    """What ``--json`` prints."""
    sizes = {"width": [width for width, _ in findings.sizes], "height": [height for _, height in findings.sizes]}
    return {
        "data": data,
        "rows": findings.records,
        "bad": findings.bad,
        "text_only": findings.text_only,
        "images": len(findings.sizes),
        "samples": dict(findings.held),
        "sizes": {name: _figures(values) for name, values in sizes.items()} if findings.sizes else None,
        "positions": (_figures(findings.lengths) | {"histogram": _bins(findings.lengths)})
        if findings.lengths
        else None,
        "sample": sample,
        "kinds": dict(findings.kinds),
        "problems": [problem.line for problem in findings.problems],
    }


def _figures(values: list[int]) -> dict[str, float]:
    import numpy as np

    low, middle, high, most = (float(each) for each in np.percentile(values, (0, 50, 95, 100)))
    return {"min": low, "median": middle, "mean": round(float(np.mean(values)), 1), "p95": high, "max": most}


def _bins(values: list[int]) -> list[tuple[int, int, int]]:
    """First and last value of each bin, and how many there are."""
    import numpy as np

    edges = np.unique(np.linspace(min(values), max(values) + 1, 11).astype(int))
    counts, _ = np.histogram(values, edges)
    return [(int(a), int(b) - 1, int(n)) for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)]


def _show(report: dict[str, Any]) -> None:
    for line in report["problems"][:_SHOWN]:
        say(line)
    if (more := len(report["problems"]) - _SHOWN) > 0:
        say(f"… and {more:,} more; --json lists all of them")
    if report["kinds"]:
        show_table("", ("problems", "what"), [(f"{count:,}", kind) for kind, count in report["kinds"].items()])
    rows = [(name.replace("_", " "), f"{report[name]:,}") for name in ("rows", "bad", "text_only", "images")]
    rows += [(f"samples: {part}", f"{count:,}") for part, count in report["samples"].items()]
    show_table("", ("what", "count"), rows)
    spread = dict(report["sizes"] or {})
    if report["positions"]:
        spread["positions"] = {key: value for key, value in report["positions"].items() if key != "histogram"}
    if spread:
        headers = ("", *next(iter(spread.values())))
        show_table("", headers, [(name, *(f"{value:,g}" for value in each.values())) for name, each in spread.items()])
    if report["positions"]:
        bins = report["positions"]["histogram"]
        most = max(count for _, _, count in bins)
        bars = [(f"{a:,}–{b:,}", f"{count:,}", "█" * round(40 * count / most)) for a, b, count in bins]
        show_table("", ("positions", "samples", ""), bars)
    if report["sample"]:
        say(report["sample"])
