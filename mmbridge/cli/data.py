"""``mmbridge data``: ``make-world DIR``, and the verbs of ``check``, ``pack`` and ``cache``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mmbridge.cli import cache, check, pack
from mmbridge.cli.options import require_writable
from mmbridge.cli.output import say

app = typer.Typer(help="Make and inspect data.", no_args_is_help=True, rich_markup_mode=None)


class Kind(StrEnum):
    """What a world's media are."""

    IMAGES = "images"


class Layout(StrEnum):
    """How the samples are written."""

    FOLDER = "folder"
    SHARDS = "shards"


app.command("check")(check.check)
app.command("pack")(pack.pack)
app.command("cache")(cache.cache)


@app.callback()
def _data() -> None:
    """Make and inspect data."""


@app.command("make-world")
def make_world(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write.")],
    kind: Annotated[Kind, typer.Option(help="What the media are.")] = Kind.IMAGES,
    split: Annotated[str, typer.Option(help="Which split of the world.")] = "test",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scenes.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="How many scenes.")] = 100,
    format: Annotated[Layout, typer.Option(help="An imagefolder, or WebDataset shards.")] = Layout.FOLDER,
) -> None:
    """Render scenes whose truth is known.

    Each has a caption, facts, questions and answers, for training or for `mmbridge eval`.
    """
    require_writable(folder)

    from mmbridge.data.world.write import write_world

    write_world(folder, split, seed, count, kind=kind.value, format=format.value)
    say(f"{count} scenes written to {folder}")
