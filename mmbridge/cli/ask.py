"""``mmbridge ask BRIDGE MEDIA... -q QUESTION``."""

from typing import Annotated

import typer

from mmbridge.cli.media import expand, read
from mmbridge.cli.options import (
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
from mmbridge.cli.output import show_answer, show_json, stream
from mmbridge.errors import MediaError, UserError


def ask(
    bridge: BridgePath,
    media: Media,
    question: Annotated[str, typer.Option("--question", "-q", help="What to ask about all of them together.")],
    streamed: Annotated[bool, typer.Option("--stream", help="Print the answer while it is written.")] = False,
    json: Json = False,
    device: Device = None,
    dtype: DtypeOption = None,
    max_new_tokens: MaxNewTokens = 64,
    beams: Beams = 1,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
) -> None:
    """Ask one question about all the files."""
    if streamed and json:
        raise UserError("--stream", "cannot be combined with --json")
    if streamed and beams > 1:
        raise UserError("--stream", f"expected --beams 1, found {beams}", "beams are known only at the end")
    paths = expand(media)
    try:
        images = [read(path) for path in paths]
    except MediaError as error:
        if json:
            show_json({"media": list(map(str, paths)), "question": question, "error": str(error)})
        raise

    from mmbridge.bridge import Bridge

    loaded = Bridge.from_pretrained(bridge, device=device, dtype=dtype)
    options = generation(max_new_tokens, beams, temperature, seed)
    if streamed:
        stream(loaded.stream(images, question, options))
    else:
        show_answer(list(map(str, paths)), question, loaded.ask(images, question, options), json, named=False)
