"""``mmbridge eval BRIDGE DATA``."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmbridge.cli.failure import tell
from mmbridge.cli.options import (
    BatchSize,
    Beams,
    BridgePath,
    DataFormat,
    DataPath,
    Device,
    DtypeOption,
    MaxNewTokens,
    Seed,
    Temperature,
    generation,
    require_writable_file,
)
from mmbridge.errors import UserError

if TYPE_CHECKING:
    from mmbridge.evaluation.run import Task as Answered
    from mmbridge.llm.config import GenerationOptions


class Task(StrEnum):
    """What is measured."""

    CAPTION = "caption"
    VQA = "vqa"
    POPE = "pope"
    RETRIEVAL = "retrieval"


class Space(StrEnum):
    """Where media and texts are compared."""

    BRANCH = "branch"
    LLM = "llm"


def evaluate(
    bridge: BridgePath,
    data: DataPath,
    task: Annotated[Task, typer.Option(help="What is measured.")] = Task.CAPTION,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many samples.")] = None,
    format: DataFormat = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the scores there.")] = None,
    shuffle_media: Annotated[
        bool, typer.Option("--shuffle-media", help="The control that must fail: everyone else's media.")
    ] = False,
    space: Annotated[
        Space | None,
        typer.Option(help="Of retrieval: a Q-Former's text branch, by default where contrast trained it, or the LLM."),
    ] = None,
    device: Device = None,
    dtype: DtypeOption = None,
    batch_size: BatchSize = 32,
    max_new_tokens: MaxNewTokens = 64,
    beams: Beams = 1,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
) -> None:
    """Measure a bridge on data whose truth is known.

    With --json FILE every answer is written to FILE.rows.jsonl beside it.
    """
    if json is not None:
        require_writable_file(json)
    options = generation(max_new_tokens, beams, temperature, seed)
    _refuse_unused(task, options, space)

    from mmbridge.data.formats import open_source
    from mmbridge.evaluation.controls import ShuffledMedia

    name: Answered | Literal["retrieval"] = task.value
    source = open_source(data, format.value if format else None, task="caption" if name == "retrieval" else name)
    read = ShuffledMedia(source) if shuffle_media else source

    from mmbridge.bridge import Bridge

    loaded = Bridge.from_pretrained(bridge, device=device, dtype=dtype)
    if name == "retrieval":
        from mmbridge.evaluation.retrieval import retrieve

        report = retrieve(loaded, read, space.value if space else None, limit, batch_size)
    else:
        from mmbridge.evaluation.run import evaluate as run

        report = run(loaded, read, name, options, limit, batch_size)
    if json is not None:
        from mmbridge.whole_file import write_whole

        report.write_rows(json.with_name(f"{json.name}.rows.jsonl"))
        write_whole(json, report.to_json() + "\n")
    print(report.render())
    if report.failed:
        tell(f"{len(report.failed)} of {report.n + len(report.failed)} samples failed")
        raise typer.Exit(1)


def _refuse_unused(task: Task, options: "GenerationOptions", space: Space | None) -> None:
    """Raises:
    UserError: an option that the task has no use for.
    """
    unused = options.model_dump(exclude_defaults=True) if task is Task.RETRIEVAL else {}
    if task is not Task.RETRIEVAL and space is not None:
        unused = {"space": space}
    for name, value in unused.items():
        raise UserError(f"--{name.replace('_', '-')}", f"expected none with --task {task}, found {value}")
