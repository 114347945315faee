"""``mmbridge align BRIDGE... DATA``."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmbridge.cli.failure import tell
from mmbridge.cli.options import (
    BatchSize,
    DataFormat,
    Device,
    DtypeOption,
    require_writable,
    require_writable_file,
)
from mmbridge.errors import UserError

if TYPE_CHECKING:
    from mmbridge.alignment.measure import OptionalName
    from mmbridge.alignment.report import AlignmentReport


SHOWN = 8
"""Samples that cannot be used, told one by one."""


class Text(StrEnum):
    """Which positions are text."""

    SAID = "said"
    AFTER = "after"


class Score(StrEnum):
    """Scores beside the default ones."""

    TOKENS = "tokens"
    CENTRED = "centred"
    NEIGHBOURS = "neighbours"
    KERNELS = "kernels"
    MIR = "mir"
    LENS = "lens"
    PCA = "pca"
    TSNE = "tsne"
    WEIGHTS = "weights"
    ALL = "all"


class At(StrEnum):
    """Sites beside the input and the blocks' outputs."""

    ATTENTION_NORM = "attention_norm"
    ATTENTION = "attention"
    AFTER_ATTENTION = "after_attention"
    FFN_NORM = "ffn_norm"
    FFN = "ffn"
    FINAL = "final"


def align(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="BRIDGE... DATA", help="One or several bridges, then the data set that each is measured on."
        ),
    ],
    score: Annotated[
        list[Score] | None,
        typer.Option(help="Also these: token statistics, CKA, MIR, logit lens …; each told with its cost."),
    ] = None,
    text: Annotated[
        Text, typer.Option(help="What text is: what the assistant says, or all words behind the first medium.")
    ] = Text.SAID,
    site: Annotated[
        list[At] | None,
        typer.Option(help="Default scores also there: what attention or the feed-forward reads (norm) or makes …"),
    ] = None,
    stride: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Compare states with what they were so many blocks before (1 and 8)."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many samples.")] = 1000,
    stored: Annotated[int, typer.Option(min=1, help="Pairs that --score is measured of.")] = 200,
    format: DataFormat = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures there.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write them as a table.")] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with pictures.")] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="DIR", help="Write the pictures as PNG (extra plot).")
    ] = None,
    device: Device = None,
    dtype: DtypeOption = None,
    batch_size: BatchSize = 32,
) -> None:
    """Measure how well perceptual tokens are aligned with text inside the LLM.

    Scores come with a 95 % interval, with what chance reaches and with a control, where there are such.
    """
    *bridges, data = paths
    if not bridges:
        raise UserError("align", f"expected bridges and then a data set, found {data} alone")
    files = [file.absolute() for file in (json, csv, html) if file is not None]
    for place, file in enumerate(files):
        require_writable_file(file)
        if file in files[:place]:
            raise UserError(file, "expected a file of its own for each of --json, --csv and --html, found it twice")
    if plot is not None:
        require_writable(plot)

    from mmbridge.data.formats import open_source

    source = open_source(data, format.value if format else None, task="caption")

    from mmbridge.alignment.measure import STRIDES, measure
    from mmbridge.bridge import Bridge

    reports: list[AlignmentReport] = []
    failures = 0
    for path, name in zip(bridges, _names(bridges), strict=True):
        loaded = Bridge.from_pretrained(path, device=device, dtype=dtype)
        report, failed = measure(
            loaded,
            source,
            name,
            limit=limit,
            text=text.value,
            sites=[each.value for each in site or ()],
            optional=_optional(score or []),
            stored=stored,
            strides=stride or STRIDES,
            batch_size=batch_size,
        )
        reports.append(report)
        for failure in failed[:SHOWN]:
            tell(failure.error)
        if len(failed) > SHOWN:
            tell(f"and {len(failed) - SHOWN} more")
        failures += len(failed)
    _write(reports, json, csv, html, plot)
    if failures:
        tell(f"{failures} samples were left out")
        raise typer.Exit(1)


def _names(paths: list[str]) -> list[str]:
    """What tells bridges apart: the shortest ends of their paths that differ."""
    parts = [Path(path).parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-length:]) for each in parts]
        if len({*names}) == len(names):
            return names
    return [f"{Path(path).name} ({number})" for number, path in enumerate(paths, start=1)]


def _optional(asked: list[Score]) -> "tuple[OptionalName, ...]":
    """``all`` is all that needs nothing installed."""
    from mmbridge.alignment.measure import OPTIONAL

    names: set[str] = {each.value for each in asked}
    return tuple(each for each in OPTIONAL if each in names or (Score.ALL in asked and each != "tsne"))


def _write(
    reports: "list[AlignmentReport]", json: Path | None, csv: Path | None, html: Path | None, plot: Path | None
) -> None:
    from mmbridge.alignment.rendering.comparison import to_json
    from mmbridge.alignment.rendering.long_form import write_csv
    from mmbridge.alignment.rendering.page import write_page
    from mmbridge.alignment.rendering.summary import render
    from mmbridge.whole_file import write_whole

    print(render(reports))
    for file, write in ((csv, write_csv), (html, write_page)):
        if file is not None:
            write(reports, file)
    if json is not None:
        write_whole(json, to_json(reports) + "\n")
    if plot is not None:
        from mmbridge.alignment.rendering.plots import write_plots

        write_plots(reports, plot)
