"""What is wrong in a recipe, in one line: the key, what was expected there, what was found, the nearest valid word.

pydantic says where a value failed in terms of its own schema (with the names of union branches in between) and what
failed in terms of one branch. Here the path is walked along the annotations of the config classes instead, which says
which keys are the file's own, what else could stand there, and which keys would have been valid.
"""

import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mmbridge.suggestions import did_you_mean, expected_one_of, one_of

_NOUNS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts", Path: "paths"}
_BOUNDS = {annotated_types.Gt: "above", annotated_types.Ge: "of at least", annotated_types.Lt: "below",
           annotated_types.Le: "of at most"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """A value of a recipe: its dotted key, and the annotation it must satisfy."""

    key: str
    annotation: Any

    def child(self, key: str | int, annotation: Any) -> "Place":
        return Place(f"{self.key}.{key}" if self.key else str(key), annotation)


def describe(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One ``key: problem`` line per mistake; the likeliest cause of the others comes first."""
    found: dict[str, tuple[int, str]] = {}
    for detail in error.errors(include_url=False):
        key, line = _describe(detail, model)
        rank = 0 if detail["type"] == "extra_forbidden" else 1  # a misspelt key also makes its right spelling missing
        found.setdefault(key, (rank, line))
    inner = {key for key in found if any(other.startswith(f"{key}.") for other in found)}  # a union's other branches
    kept = [entry for key, entry in found.items() if key not in inner]
    return [line for _, line in sorted(kept, key=lambda entry: entry[0])]


def _describe(detail: ErrorDetails, model: type[BaseModel]) -> tuple[str, str]:
    """The key at fault, and the line about it."""
    kind, given = detail["type"], detail["input"]
    inside = kind in ("extra_forbidden", "missing", "value_error")  # the section is known; a key of it is at fault
    loc = detail["loc"] if kind not in ("extra_forbidden", "missing") else detail["loc"][:-1]
    place = walk(Place("", model), loc, into_last=inside)
    if kind == "extra_forbidden":
        hint = did_you_mean(_fields(place.annotation), detail["loc"][-1])
        key = place.child(detail["loc"][-1], None).key
        return key, f"{key}: unknown key" + (f"; {hint}" if hint else "")
    if kind == "missing":
        name = detail["loc"][-1]
        missing = place.child(name, child_annotation(_branches(place.annotation)[0], name))
        return missing.key, f"{missing.key}: missing; expected {phrase(missing.annotation)}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        kinds = list(_by_kind(_branches(place.annotation)))
        key = place.child("kind", None).key
        if kind == "union_tag_not_found":
            return key, f"{key}: missing; expected {one_of(kinds)}"
        return key, f"{key}: {expected_one_of(kinds, given['kind'])}"
    if kind == "value_error":  # our own check: its message is whole, and carries the key where it is one field's alone
        message = str(detail["ctx"]["error"])
        field, colon, problem = message.partition(": ")
        if colon and field.split(".")[0] in _fields(place.annotation):
            place, message = place.child(field, None), problem
        return place.key, f"{place.key}: {message}"
    if kind == "string_pattern_mismatch":
        return place.key, f"{place.key}: expected text that matches {detail['ctx']['pattern']}, found {shown(given)}"
    literals = _literals(place.annotation)
    if kind == "literal_error" and all(
        get_origin(_bare(branch)[0]) is Literal for branch in _branches(place.annotation)
    ):
        return place.key, f"{place.key}: {expected_one_of(literals, given)}"
    return place.key, f"{place.key}: expected {phrase(place.annotation)}, found {shown(given)}"


def walk(place: Place, loc: Sequence[str | int], into_last: bool) -> Place:
    """Follows a pydantic location. The names of union branches are no part of the key but lead on, the last one only if
    ``into_last``: otherwise the whole union is what was expected."""
    for position, element in enumerate(loc):
        branches = _branches(place.annotation)
        if len(branches) > 1:
            branch = _branch(branches, str(element))
            if branch is None or (position == len(loc) - 1 and not into_last):
                return place
            place = Place(place.key, branch)
            continue
        inner = child_annotation(branches[0], element)
        if inner is None:
            return place
        place = place.child(element, inner)
    return place


def child_annotation(annotation: Any, element: str | int) -> Any:
    """The annotation of a key or item of a section, a mapping or a list; ``None`` where there cannot be one."""
    annotation, _ = _bare(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(element))
        return None if field is None else _constrained(field)
    if origin is dict:
        return arguments[1]
    if origin is list or (origin is tuple and arguments[-1] is Ellipsis):
        return arguments[0]
    if origin is tuple:
        return arguments[element] if isinstance(element, int) and element < len(arguments) else None
    return None


def _constrained(field: FieldInfo) -> Any:
    """A field's annotation with the constraints that pydantic keeps beside it."""
    annotation: Any = field.annotation
    for constraint in field.metadata:
        annotation = Annotated[annotation, constraint]
    return annotation


def phrase(annotation: Any) -> str:
    """What may stand there, in words: ``a number above 0``, ``one of linear, mlp``, ``a list of texts``."""
    branches, literals = _branches(annotation), _literals(annotation)
    words = [_phrase(branch, annotation) for branch in branches if get_origin(_bare(branch)[0]) is not Literal]
    return " or ".join([one_of(literals)] * bool(literals) + list(dict.fromkeys(words)))


def _phrase(branch: Any, whole: Any) -> str:
    annotation, constraints = _bare(branch)
    if annotation in _NOUNS:
        constraints = constraints or _bare(whole)[1]
        bounds = [f"{_BOUNDS[type(bound)]} {_limit(bound)}" for bound in constraints if type(bound) in _BOUNDS]
        return " ".join([_NOUNS[annotation], " and ".join(bounds)]).rstrip()
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (list, tuple):
        item = _bare(arguments[0])[0]
        size = "" if origin is list or arguments[-1] is Ellipsis else f"{len(arguments)} "
        return f"a {_filled(whole)}list of {size}{_PLURALS.get(item, 'sections')}"
    return f"a {_filled(whole)}section of keys"


def _filled(annotation: Any) -> str:
    return "non-empty " if any(isinstance(bound, annotated_types.MinLen) for bound in _bare(annotation)[1]) else ""


def _limit(bound: Any) -> Any:
    return next(getattr(bound, name) for name in ("gt", "ge", "lt", "le") if hasattr(bound, name))


def shown(value: Any) -> str:
    """A value as an error quotes it."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a section of keys" if value else "an empty one"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _bare(annotation: Any) -> tuple[Any, list[Any]]:
    """An annotation without ``Annotated``, and the constraints that were on it."""
    constraints: list[Any] = []
    while get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        constraints += [part for item in more for part in getattr(item, "metadata", [item])]
    return annotation, constraints


def _branches(annotation: Any) -> list[Any]:
    """The alternatives of a union, other than null; a plain annotation is its only branch."""
    annotation, _ = _bare(annotation)
    if get_origin(annotation) not in (Union, types.UnionType):
        return [annotation]
    inner = [argument for argument in get_args(annotation) if argument is not type(None)]
    return [branch for argument in inner for branch in (_branches(argument) if _is_union(argument) else [argument])]


def _is_union(annotation: Any) -> bool:
    return get_origin(_bare(annotation)[0]) in (Union, types.UnionType)


def _literals(annotation: Any) -> list[str]:
    bare = [_bare(branch)[0] for branch in _branches(annotation)]
    return [str(value) for branch in bare if get_origin(branch) is Literal for value in get_args(branch)]


def _by_kind(branches: Sequence[Any]) -> dict[str, Any]:
    """The config classes of a union by what their ``kind`` says."""
    models = [model for model in (_bare(branch)[0] for branch in branches) if isinstance(model, type)]
    return {
        kind: model
        for model in models
        if issubclass(model, BaseModel) and "kind" in model.model_fields
        for kind in get_args(model.model_fields["kind"].annotation)
    }


def _branch(branches: Sequence[Any], label: str) -> Any:
    """The branch that pydantic calls ``label``: a kind, or the name of a type."""
    tagged = _by_kind(branches)
    if label in tagged:
        return tagged[label]
    for branch in branches:
        annotation, _ = _bare(branch)
        name = getattr(annotation, "__name__", "")
        if name and (label == name or label.startswith(f"{name}[") or f" {name}]" in label or label in str(annotation)):
            return branch
    return None


def _fields(model: Any) -> list[str]:
    return list(getattr(_bare(_branches(model)[0])[0], "model_fields", ()))
