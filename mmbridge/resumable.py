"""What may differ when a run is gone on with: where and how its steps are computed, and nothing about the steps."""

import json
from pathlib import Path
from typing import Any

from mmbridge.errors import RecipeError
from mmbridge.recipe import Recipe
from mmbridge.recipe_file import parse

RECIPE, ENVIRONMENT = "recipe.yaml", "environment.json"
"""Of a run's folder."""

_FREE = ("engine", "features", "log", "workers", "checkpoint", "batch", "accumulate", "budget", "packing")
"""Keys that may differ, with all below them; a step's samples, batch × accumulate × processes, may not."""


def require_same_steps(recipe: Recipe, folder: Path, processes: int) -> None:
    """Sees to it that a recipe, on so many processes, takes the steps of the run in ``folder``; a new one has none yet.

    Raises:
        RecipeError: the first key that would change them.
    """
    path = folder / RECIPE
    if not path.exists():
        return
    then = parse(path.read_text(encoding="utf-8"), str(path))
    before, now = (_flat(each.model_dump(mode="json")) for each in (then, recipe))
    fix = "resume with the recipe of the run, or name another --out"
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key) and not set(key.split(".")) & set(_FREE):
            raise RecipeError(key, f"expected {before.get(key)!r} as in {path}, found {now.get(key)!r}", fix)
    count = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8")).get("processes", 1)
    for old, new in zip(then.stages, recipe.stages, strict=True):
        expected, found = old.batch * old.accumulate * count, new.batch * new.accumulate * processes
        if expected != found:
            problem = f"expected batch × accumulate × processes to be {expected} as in {folder}, found {found}"
            raise RecipeError(f"stages.{new.name}.batch", problem, "set batch or accumulate to suit")


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        return {key: value}
    flat: dict[str, Any] = {}
    for name, each in inner:
        flat |= _flat(each, f"{key}.{name}" if key else str(name))
    return flat
