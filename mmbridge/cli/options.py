"""Options that several verbs share, and what they turn into."""

import os
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmbridge.errors import UserError

if TYPE_CHECKING:
    from mmbridge.llm.config import GenerationOptions


class Dtype(StrEnum):
    """Number formats of frozen parts."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Format(StrEnum):
    """How a data set is laid out."""

    WEBDATASET = "webdataset"
    FOLDER = "folder"
    LLAVA = "llava"
    CHAT = "chat"
    DATASETS = "datasets"
    PARQUET = "parquet"


BridgePath = Annotated[
    str,
    typer.Argument(metavar="BRIDGE", help="A bridge or run folder, a hub id, or a transformers LLaVA folder."),
]
Media = Annotated[
    list[str],
    typer.Argument(metavar="MEDIA...", help="Files, folders of images, rows of tables of vectors (items.npy#17)."),
]
DataPath = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Shards or Parquet (folder, file, pattern, URL; Parquet also hf://datasets/ORG/NAME/*.parquet), "
        "a metadata.jsonl folder, LLaVA JSON, chat JSONL, a saved Dataset.",
    ),
]
DataFormat = Annotated[Format | None, typer.Option("--format", help="The layout of DATA, where looking does not tell.")]
MediaRoot = Annotated[
    Path | None,
    typer.Option("--media-root", metavar="DIR", help="The folder media paths start from and may not leave."),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …; an accelerator where there is one by default.")]
DtypeOption = Annotated[Dtype | None, typer.Option("--dtype", help="Number format; the bridge's own by default.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Media or samples run at once.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Longest text written, in tokens.")]
Beams = Annotated[int, typer.Option(min=1, help="Beams of beam search; 1 is greedy.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="Above 0, sample at this temperature.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the sampling.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


def generation(max_new_tokens: int, beams: int, temperature: float, seed: int) -> "GenerationOptions":
    """The options of a generation, from those of the command line.

    Raises:
        UserError: they exclude each other.
    """
    from mmbridge.llm.config import GenerationOptions

    if beams > 1 and temperature > 0:
        raise UserError("--beams", f"expected 1 with --temperature {temperature:g}, found {beams}")
    return GenerationOptions(max_new_tokens=max_new_tokens, beams=beams, temperature=temperature, seed=seed)


def require_writable(folder: Path) -> None:
    """Finds out now, rather than after hours of work, whether ``folder`` can be made and written to.

    Raises:
        UserError: it cannot.
    """
    try:
        place = folder.absolute()
        while not place.exists():
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise UserError(folder, f"cannot write there: {os.strerror(error.errno or 0).lower()}") from None


def require_writable_file(path: Path) -> None:
    """The same for a file that a verb writes at its end."""
    try:
        folder = path.is_dir()
    except OSError as error:  # such as a name that is too long
        raise UserError(path, f"cannot write there: {os.strerror(error.errno or 0).lower()}") from None
    if folder:
        raise UserError(path, "expected a file to write, found a folder")
    require_writable(path.parent)
