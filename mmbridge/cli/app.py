"""All verbs under one command, and what every ending of them looks like from outside.

Exit codes: 0 success; 1 some inputs failed, or an internal fault; 2 something the user can put right; 130 Ctrl-C.
Every failure is one line on stderr; ``MMBRIDGE_DEBUG=1`` shows the traceback instead.
"""

import os
import sys
from typing import Annotated

import typer

from mmbridge import __version__
from mmbridge.cli import align, ask, caption, data, evaluate, export, info, recipes, train
from mmbridge.cli.failure import ending

app = typer.Typer(
    name="mmbridge",
    help="Bolt frozen encoders onto a frozen LLM, then caption, question and measure.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.command("caption")(caption.caption)
app.command("ask")(ask.ask)
app.command("eval")(evaluate.evaluate)
app.command("align")(align.align)
app.command("export")(export.export)
app.command("recipes")(recipes.recipes)
app.command("info")(info.info)
app.add_typer(data.app, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _before(
    local_rank: Annotated[
        int | None,
        typer.Option(
            "--local_rank", "--local-rank", hidden=True, help="Put before the verb by the deepspeed launcher."
        ),
    ] = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Bolt frozen encoders onto a frozen LLM, then caption, question and measure."""


def run(arguments: list[str]) -> int:
    """The exit code of one command line."""
    try:
        code = app(arguments or ["--help"], prog_name="mmbridge", standalone_mode=False)
        sys.stdout.flush()
        if code == 130:  # what typer makes of Ctrl-C, without a word
            return ending(KeyboardInterrupt())
    except BrokenPipeError:  # the reader of our output left, as in `mmbridge recipes | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as error:
        return ending(error)
    return code if isinstance(code, int) else 0
