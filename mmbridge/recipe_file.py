"""Recipes as YAML files: reading, ``key=value`` overrides, variants, writing.

YAML here differs from PyYAML's default in two ways: ``1e-4`` is a number (as in YAML 1.2), and a key given twice in
one section is refused instead of silently winning.
"""

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mmbridge.errors import RecipeError
from mmbridge.recipe import Recipe
from mmbridge.recipe_errors import describe, shown
from mmbridge.suggestions import did_you_mean

_NUMBER = re.compile(r"[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$")
_NAMED = ("encoders", "connectors", "variants")  # sections whose keys are names that the recipe chose
_RIVALS = {"steps": "epochs", "epochs": "steps"}  # a stage has exactly one; setting the one takes the other away


class _Loader(yaml.SafeLoader):
    """Safe YAML with unique keys and numbers in scientific notation."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Writes what ``_Loader`` reads back: text that looks like a number is quoted."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _resolving in (_Loader, _Dumper):
    _resolving.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+0123456789"))


def shipped() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(files("mmbridge.recipes")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(name_or_path: str | Path) -> Path:
    """The YAML file of a shipped recipe's name or of a path.

    Raises:
        RecipeError: neither a shipped name nor a file.
    """
    name, recipes = str(name_or_path), shipped()
    if name in recipes:
        return recipes[name]
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.is_dir():
        raise RecipeError(name, "expected a recipe file, found a folder")
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise RecipeError(name, "no such file")
    hint = did_you_mean(recipes, name)
    raise RecipeError(name, "unknown recipe", hint or f"shipped are {', '.join(recipes)}")


def load(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe; ``variant=…`` is applied first, then the other overrides in order.

    Raises:
        RecipeError: one line with file, key, what was expected and what was found.
    """
    path = find(name_or_path)
    where = path.name if path in shipped().values() else str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(where, f"cannot be read: {error}") from error
    return parse(text, where, overrides)


def parse(text: str, where: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from YAML text; ``where`` is what errors call it."""
    raw = _yaml(text, where)
    if not isinstance(raw, dict):
        raise RecipeError(where, f"expected a recipe, a section of keys, found {shown(raw)}")
    pairs = [_pair(override) for override in overrides]
    for key, value in pairs:
        if key == "variant":
            for name in str(value).split(","):
                for inner, replacement in _variant(raw, name.strip(), where).items():
                    _set(raw, inner, replacement, where)
    for key, value in pairs:
        if key != "variant":
            _set(raw, key, value, where)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        first, *others = describe(error, Recipe)
        key, problem = first.split(": ", 1)
        more = f" (and {len(others)} more)" if others else ""
        raise RecipeError(f"{where}: {key}", problem + more) from None


def dump(recipe: Recipe) -> str:
    """YAML of the whole recipe, defaults included."""
    return yaml.dump(recipe.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}: " if mark is not None else ""
        raise RecipeError(where, f"{line}not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise RecipeError(where, f"not YAML: {' '.join(str(error).split())}") from None


def _pair(override: str) -> tuple[str, Any]:
    key, equals, value = override.partition("=")
    if not equals or not all(key.split(".")):
        raise RecipeError(override, "expected KEY=VALUE", "overrides look like stages.0.steps=100")
    return key, _yaml(value, override)


def _variant(raw: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    variants = raw.get("variants") or {}
    if not isinstance(variants, dict) or not isinstance(variants.get(name, {}), dict):
        raise RecipeError(f"{where}: variants", "expected named sections of dotted overrides")
    if name not in variants:
        known = f"expected one of {', '.join(variants)}" if variants else "it has none"
        raise RecipeError(f"{where}: variants.{name}", f"no such variant; {known}", did_you_mean(variants, name))
    section: dict[str, Any] = variants[name]
    return section


def _set(raw: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Puts ``value`` at a dotted key of the raw recipe, in place.

    A section that the file leaves to its defaults is started; a named part (an encoder, a connector, a stage) must be
    there already, unless the override gives it whole.
    """
    *parents, last = key.split(".")
    holder: Any = raw
    place = ""
    for parent in parents:
        index = _index(holder, parent, place, where)
        if isinstance(holder, dict) and holder.get(index) is None:
            holder[index] = {}
        holder = holder[index]
        place = _join(place, parent)
    index = _index(holder, last, place, where, new=True)
    holder[index] = value
    if isinstance(holder, dict) and last in _RIVALS and re.fullmatch(r"stages\.[^.]+", place):
        holder.pop(_RIVALS[last], None)


def _index(holder: Any, word: str, place: str, where: str, new: bool = False) -> str | int:
    """The key or list index that ``word`` means in ``holder``, which stands at the dotted key ``place``."""
    if isinstance(holder, list):
        names = [str(item.get("name", "")) if isinstance(item, dict) else "" for item in holder]
        if word in names:
            return names.index(word)
        if word.isdecimal() and int(word) < len(holder):
            return int(word)
        listed = ", ".join(f"{index} {name}".rstrip() for index, name in enumerate(names)) or "nothing"
        hint = did_you_mean(filter(None, names), word)
        raise RecipeError(f"{where}: {_join(place, word)}", f"no such item; {place} has {listed}", hint)
    if not isinstance(holder, dict):
        raise RecipeError(f"{where}: {place}", f"expected a section of keys, found {shown(holder)}")
    if word not in holder and not new and place in _NAMED:
        fix = did_you_mean(holder, word) or f"expected one of {', '.join(map(str, holder))}"
        raise RecipeError(f"{where}: {_join(place, word)}", "no such part", fix)
    return word


def _join(place: str, word: str) -> str:
    return f"{place}.{word}" if place else word
