"""The frozen sources of a recipe: where its encoders and its LLM come from, and whether they are still the same."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmbridge.encoders.config import EncoderConfig
from mmbridge.errors import BridgeError, RecipeError
from mmbridge.frozen import content_hash, file_hash
from mmbridge.llm.config import LLMConfig
from mmbridge.recipe import Recipe

Sources = Mapping[str, Mapping[str, str | None]]
"""By part (``llm``, ``llm.mask``, ``encoders.NAME``): ``path``, ``revision`` and the ``sha256`` of what is there."""


def sources(recipe: Recipe) -> Sources:
    """What each frozen part that has files is now.

    Raises:
        RecipeError: a part cannot be found.
    """
    parts = {"llm": recipe.llm} | {f"encoders.{name}": config for name, config in recipe.encoders.items()}
    places = {name: part.located() for name, part in parts.items()}
    found: dict[str, dict[str, str | None]] = {
        name: {"path": parts[name].path, "revision": parts[name].revision, "sha256": content_hash(place)}
        for name, place in places.items()
        if place is not None
    }
    if recipe.llm.mask is not None:
        found["llm.mask"] = {"path": recipe.llm.mask, "revision": None, "sha256": file_hash(_mask(recipe.llm.mask))}
    return found


def check(now: Sources, then: Sources) -> None:
    """Sees to it that frozen parts are those that connectors were trained for.

    Raises:
        BridgeError: the first part whose contents have changed, or the LLM's mask where one of the two has none.
    """
    if ("llm.mask" in now) != ("llm.mask" in then):
        place = str({**now, **then}["llm.mask"]["path"])
        expected, found = (place, "none") if "llm.mask" in then else ("none", place)
        problem = f"expected the mask that the bridge was trained with, {expected}, found {found}"
        raise BridgeError("llm.mask", problem, "restore its recipe, or train it again")
    for name, source in now.items():
        expected, found = (str(each.get("sha256"))[:12] for each in (then.get(name, {}), source))
        if expected != found:
            problem = f"{source['path']} has changed: expected contents {expected}, found {found}"
            raise BridgeError(name, problem, "restore what the bridge was trained with, or train it again")


def resolved(recipe: Recipe) -> Recipe:
    """The recipe with its frozen parts pinned: local folders and files named from the root, hub models by their
    commit."""
    pinned = _with_parts(recipe, _pinned)
    return pinned if recipe.llm.mask is None else with_mask(pinned, _mask(recipe.llm.mask))


def with_mask(recipe: Recipe, mask: Path) -> Recipe:
    """The recipe with the LLM's mask in another place."""
    return recipe.model_copy(update={"llm": recipe.llm.model_copy(update={"mask": str(mask.absolute())})})


def _mask(path: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise RecipeError("llm.mask", f"expected a weight mask, found no file {path}")
    return file


def with_dtype(recipe: Recipe, dtype: str) -> Recipe:
    """The recipe with its frozen parts in another number format."""
    return _with_parts(recipe, lambda part: {"dtype": dtype})


def _with_parts(recipe: Recipe, changes: Callable[[LLMConfig | EncoderConfig], dict[str, Any]]) -> Recipe:
    """The recipe with something changed in every frozen part."""
    llm = recipe.llm.model_copy(update=changes(recipe.llm))
    encoders = {name: each.model_copy(update=changes(each)) for name, each in recipe.encoders.items()}
    return recipe.model_copy(update={"encoders": encoders, "llm": llm})


def _pinned(part: LLMConfig | EncoderConfig) -> dict[str, Any]:
    place = None if part.path is None or part.path.startswith("world:") else part.located()
    if part.path is None or place is None:
        return {}
    if Path(part.path).expanduser().exists():
        return {"path": str(place.absolute())}
    return {"revision": place.name}  # the hub client keeps each commit in a folder of its name
