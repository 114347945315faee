"""``mmbridge caption BRIDGE MEDIA...``."""

from pathlib import Path
from typing import Annotated

import typer

from mmbridge.cli.failure import tell
from mmbridge.cli.media import expand, read
from mmbridge.cli.options import (
    BatchSize,
    Beams,
    BridgePath,
    Device,
    DtypeOption,
    Json,
    MaxNewTokens,
    Media,
    Seed,
    Temperature,
    generation,
)
from mmbridge.cli.output import show_answer, show_json
from mmbridge.data.sample import Medium
from mmbridge.errors import MediaError


def caption(
    bridge: BridgePath,
    media: Media,
    prompt: Annotated[str | None, typer.Option(help="What to ask for instead of the usual caption prompt.")] = None,
    json: Json = False,
    device: Device = None,
    dtype: DtypeOption = None,
    batch_size: BatchSize = 16,
    max_new_tokens: MaxNewTokens = 64,
    beams: Beams = 1,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
) -> None:
    """Describe each file.

    A file that cannot be used is told on stderr and the others go on; exit code 1 then, or 2 when none was usable.
    """
    paths = expand(media)
    batches = [paths[start : start + batch_size] for start in range(0, len(paths), batch_size)]
    loaded, failed = None, 0
    for batch in batches:
        opened = [_try(path) for path in batch]
        images = [medium for medium in opened if isinstance(medium, Medium)]
        if images and loaded is None:  # only now: nobody waits for a model to learn that a file is missing
            from mmbridge.bridge import Bridge

            loaded = Bridge.from_pretrained(bridge, device=device, dtype=dtype)
            options = generation(max_new_tokens, beams, temperature, seed)
        answers = iter(loaded.caption(images, prompt, options) if loaded is not None and images else ())
        for path, medium in zip(batch, opened, strict=True):
            if isinstance(medium, MediaError):
                failed += 1
                tell(str(medium))
                if json:
                    show_json({"media": [str(path)], "question": prompt, "error": str(medium)})
            else:
                show_answer([str(path)], prompt, next(answers), json, named=len(paths) > 1)
    if failed:
        raise typer.Exit(2 if failed == len(paths) else 1)


def _try(path: Path) -> Medium | MediaError:
    try:
        return read(path)
    except MediaError as error:
        return error
