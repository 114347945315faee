"""What features on disk were made with, in plain words, so that stale ones are refused by name."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from mmbridge.encoders.base import PREPARATION
from mmbridge.encoders.config import EncoderConfig, VectorsConfig
from mmbridge.errors import RecipeError
from mmbridge.frozen import content_hash

Origin = Mapping[str, Any]
"""JSON: the encoder's section of the recipe, the SHA-256 of its files, the versions of what decides its pixels."""

_PACKAGES = {"open_clip": "open_clip_torch", "timm": "timm", "transformers": "transformers"}
_NAMES = ("path", "revision")
"""Where the encoder was found: told, and not compared, as the contents are."""


def origin_of(config: EncoderConfig) -> Origin:
    """What the features of an encoder would be made with now.

    Raises:
        RecipeError: the encoder cannot be found, or has nothing to compute.
    """
    if isinstance(config, VectorsConfig):
        problem = "expected encoders that compute features, found kind vectors, whose media are features already"
        raise RecipeError("encoders", problem, "leave features out of the recipe")
    packages = {"pillow", "simplejpeg", "torchvision", _PACKAGES[config.kind]}
    if config.aspect == "tiles":
        packages.add("transformers")  # chooses the tiling
    return {
        **config.model_dump(mode="json"),
        "contents": content_hash(config.located()),
        "preparation": PREPARATION,
        **{package: version(package) for package in sorted(packages)},
    }


def difference(expected: Origin, found: Origin) -> tuple[str, str] | None:
    """What differs between two origins, each said in words; ``None`` where features of one are those of the other."""
    keys = [key for key in {**expected, **found} if key not in _NAMES and expected.get(key) != found.get(key)]
    if not keys:
        return None
    more = f" (and {len(keys) - 1} more that differ)" if len(keys) > 1 else ""
    key = keys[0]
    return f"{key} {_shown(expected.get(key))}", f"{key} {_shown(found.get(key))}{more}"


def _shown(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text[:12] if len(text) == 64 else text or "none"  # of a hash, what tells it apart
