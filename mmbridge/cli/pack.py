"""``mmbridge data pack DATA OUT``."""

from pathlib import Path
from typing import Annotated

import typer

from mmbridge.cli.failure import tell
from mmbridge.cli.options import DataFormat, DataPath, Json, MediaRoot, require_writable
from mmbridge.cli.output import say, show_json


def pack(
    data: DataPath,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new or empty folder.")],
    format: DataFormat = None,
    media_root: MediaRoot = None,
    per_shard: Annotated[int, typer.Option(min=1, help="Records of one shard.")] = 1000,
    skip: Annotated[bool, typer.Option("--skip", help="Leave out what cannot be read, and list it.")] = False,
    json: Json = False,
) -> None:
    """Write a data set as WebDataset shards.

    Image files go over as they are; conversations keep their images in place. OUT appears whole or not at all.
    """
    require_writable(out)

    from mmbridge.data.pack import pack as run

    packed = run(data, out, format.value if format else None, media_root, per_shard=per_shard, skip=skip)
    if json:
        counts = {"records": packed.records, "shards": packed.shards, "images": packed.images}
        show_json({"out": str(out)} | counts | {"skipped": [problem.line for problem in packed.skipped]})
    else:
        for problem in packed.skipped:
            say(f"left out  {problem.line}")
        say(f"{packed.records:,} records with {packed.images:,} images written to {packed.shards:,} shards in {out}")
    if packed.skipped:
        tell(f"{len(packed.skipped)} of {packed.records + len(packed.skipped)} records left out")
        raise typer.Exit(1)
