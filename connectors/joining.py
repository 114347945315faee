"""Features of several encoders over the same media as one, joined on the width.

Symbols: V views, N tokens of a view, D_enc the width of an encoder.
"""

from collections.abc import Sequence

import torch

from mmbridge.encoders.base import EncoderFacts, Features
from mmbridge.errors import RecipeError


def joined(features: Sequence[Features], key: str) -> Features:
    """(V, N, D_enc) of each to (V, N, ΣD_enc), first encoder first; a token is real where all of them have it.

    Args:
        features: of each encoder.
        key: where the connector stands in its recipe, for errors.

    Raises:
        RecipeError: the encoders cut the media differently.
    """
    first, *others = features
    if not others:
        return first
    mask = first.mask
    for other in others:
        if (other.grids, other.tilings) != (first.grids, first.tilings):
            problem = "expected encoders that cut a medium into the same views and grids, found different ones"
            raise RecipeError(f"{key}.encoders", problem, "give them the same aspect and pinpoints")
        mask = mask & other.mask
    values = torch.cat([one.values for one in features], dim=-1)
    return Features(values, mask, first.grids, first.tilings, first.prefix)


def joined_facts(facts: Sequence[EncoderFacts], names: Sequence[str], key: str) -> EncoderFacts:
    """Of encoders by these names.

    Raises:
        RecipeError: their grids, or the tokens in front of them, differ.
    """
    first = facts[0]
    for name, other in zip(names, facts, strict=True):
        if (other.grid, other.prefix) != (first.grid, first.prefix):
            shapes = [f"{one.grid}" + (f" and {one.prefix} in front" if one.prefix else "") for one in (first, other)]
            problem = f"expected encoders of one grid, found {shapes[0]} ({names[0]}) and {shapes[1]} ({name})"
            fix = "" if other.prefix == first.prefix else "set tokens to patches for each"
            raise RecipeError(f"{key}.encoders", problem, fix)
    return EncoderFacts(sum(one.width for one in facts), first.grid, first.prefix)


def apart(features: Sequence[Features], key: str) -> tuple[Features, ...]:
    """Each as it is; grids may differ between encoders, but not how media are cut into views.

    Raises:
        RecipeError: the encoders cut the media differently.
    """
    if any(one.tilings != features[0].tilings for one in features):
        problem = "expected encoders that cut a medium into the same views, found different ones"
        raise RecipeError(f"{key}.encoders", problem, "give them the same aspect and pinpoints")
    return tuple(features)
