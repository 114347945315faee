"""``mmbridge train RECIPE [KEY=VALUE ...]``."""

from pathlib import Path
from typing import Annotated

import typer

from mmbridge.cli.failure import tell
from mmbridge.cli.options import Device, require_writable


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name, or a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Overrides such as stages.0.steps=100 or variant=world."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The run folder; runs/<recipe> by default.")] = None,
    stage: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this stage; may be repeated.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from where the run folder stands.")] = False,
    device: Device = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the run; the recipe's by default.")] = None,
) -> None:
    """Train a bridge from a recipe.

    DIR/bridge is the last finished stage, DIR/stages/<name> each stage's bridge.
    """
    from mmbridge.recipe_file import load

    added = [f"engine.device={device}"] if device else []
    added += [f"seed={seed}"] if seed is not None else []
    loaded = load(recipe, [*(overrides or []), *added])
    folder = out or Path("runs") / loaded.name
    loaded.require_stages(stage or [])
    require_writable(folder)

    from mmbridge.train import train as run

    try:
        run(loaded, folder, stages=stage or None, resume=resume)
    except KeyboardInterrupt:
        tell(f"stopped; the same command with --resume goes on from {folder}")
        raise
