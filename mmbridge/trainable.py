"""Which parameters of a bridge train, by glob patterns over their names."""

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import filter as matching

import torch

from mmbridge.bridge import Bridge
from mmbridge.errors import RecipeError
from mmbridge.frozen import freeze
from mmbridge.llm.recomputing import NOTHING
from mmbridge.llm.weight_mask import linear_layers
from mmbridge.stage import StageConfig


def unfreeze(bridge: Bridge, stage: StageConfig, key: str, *, parts: Sequence[str]) -> None:
    """Freezes the whole bridge but for what a stage trains, which is taken into float32.

    Args:
        bridge: as built.
        stage: ``train`` holds fnmatch globs.
        key: where the stage stands in its recipe, for errors.
        parts: beginnings of the names that may train in it, such as ``connectors.``.

    Raises:
        RecipeError: a pattern matches nothing, or a parameter that may not train, or one that would have to be
            computed in float32 inside a part that is not.
    """
    freeze(bridge)
    parameters = dict(bridge.named_parameters())
    for index, pattern in enumerate(stage.train):
        place = f"{key}.train.{index}"
        for name in matched(parameters, pattern, place):
            if not name.startswith(tuple(parts)):
                allowed = " and ".join(f"{part}*" for part in parts)
                raise RecipeError(place, f"expected parameters within {allowed}, found {name}", _fix(name))
            _take_part(bridge, name, stage, place)


def _take_part(bridge: Bridge, name: str, stage: StageConfig, place: str) -> None:
    parameter = bridge.get_parameter(name)
    if bridge.recipe.llm.mask is not None and any(
        parameter is layer.weight for layer in linear_layers(bridge.llm.layers).values()
    ):
        problem = f"{name} is masked: expected it to stay frozen, found it among what trains"
        raise RecipeError(place, problem, "train llm.lora over it, or set llm.mask to null")
    if parameter.dtype not in (torch.float32, torch.bfloat16):
        found = str(parameter.dtype).removeprefix("torch.")
        fix = (
            "set llm.dtype"
            if parameter.is_floating_point()
            else "train llm.lora over it, or set llm.quantization to null"
        )
        raise RecipeError(place, f"expected float32 or bfloat16, found {name} in {found}", fix)
    if parameter.dtype is torch.bfloat16 and stage.precision == "float32":
        problem = f"{name} trains inside a part in bfloat16: expected precision bfloat16, found float32"
        raise RecipeError(place, problem, "set the stage's precision or llm.dtype")
    parameter.data = parameter.data.float()
    parameter.requires_grad_(True)
    if not name.startswith("connectors."):
        bridge.unfrozen.add(name)


def _fix(name: str) -> str:
    if name.startswith("encoders."):
        return "encoders run without gradients and always stay frozen"
    return "parts of the LLM train in the script instruct"


def settle(bridge: Bridge) -> None:
    """Freezes the whole bridge again; what trained inside the LLM goes back to the LLM's number format.

    Nothing that an engine kept for training, such as keys and values of constant beginnings, stays with it.
    """
    freeze(bridge)
    bridge.llm.packing, bridge.llm.recompute = None, NOTHING
    for name, parameter in bridge.llm.named_parameters():
        if f"llm.{name}" in bridge.unfrozen and ".lora_" not in name:
            parameter.data = parameter.data.to(getattr(torch, bridge.recipe.llm.dtype))


def matched(names: Iterable[str], pattern: str, place: str) -> list[str]:
    """The names that a glob matches, in their order.

    Raises:
        RecipeError: none; with the nearest names there are.
    """
    names = list(names)
    found = matching(names, pattern)
    if not found:
        near = " or ".join(_nearest(names, pattern))
        problem = f"expected a pattern of parameter names, found {pattern!r}, which matches none"
        raise RecipeError(place, problem, f"near it are {near}" if near else "")
    return found


def _nearest(names: Sequence[str], pattern: str) -> list[str]:
    """Up to three names, or beginnings of names, that are most like the pattern."""
    stem = pattern.strip("*.")
    beginnings: dict[str, str] = {}
    for name in names:
        words = name.split(".")
        beginnings[name] = name
        for count in range(1, len(words)):
            beginnings.setdefault(".".join(words[:count]), ".".join(words[:count]) + ".*")
    return [beginnings[each] for each in difflib.get_close_matches(stem, beginnings, n=3, cutoff=0.5)]
