"""``mmbridge export BRIDGE DIR --format llava``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mmbridge.cli.options import BridgePath, require_writable
from mmbridge.cli.output import say


class Format(StrEnum):
    """What a bridge can be written as."""

    LLAVA = "llava"


def export(
    bridge: BridgePath,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write.")],
    format: Annotated[Format, typer.Option(help="The format to write.")] = Format.LLAVA,
) -> None:
    """Write a bridge in another format.

    llava is the folder format of transformers' LLaVA, which many servers read.
    """
    require_writable(folder)

    from mmbridge.bridge import Bridge
    from mmbridge.llava import export_llava

    export_llava(Bridge.from_pretrained(bridge), folder)
    say(f"written to {folder}")
