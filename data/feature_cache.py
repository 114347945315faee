"""Features that were written before, for whoever makes batches."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from mmbridge.data.feature_origin import origin_of
from mmbridge.data.feature_store import FeatureStore, require_origin
from mmbridge.data.media import LIMITS, Limits
from mmbridge.data.media_key import key_of
from mmbridge.data.sample import Medium
from mmbridge.encoders.base import Stored
from mmbridge.encoders.config import EncoderConfig
from mmbridge.errors import FeatureError


class FeatureCache:
    """The features of several encoders. It can be pickled; the copy reads the same files.

    Args:
        stores: by the encoder's name in the recipe.
        missing: whether a medium that is not there is to be encoded, or is an error.
    """

    def __init__(self, stores: Mapping[str, FeatureStore], missing: Literal["encode", "raise"]) -> None:
        self._stores, self._missing = dict(stores), missing

    def find(self, medium: Medium, encoders: Iterable[str], limits: Limits = LIMITS) -> dict[str, Stored]:
        """The features of a medium by encoder, of those encoders that they are there of.

        Raises:
            MediaError: the medium cannot be read.
            FeatureError: what is there is damaged; or something is missing, and that is an error.
        """
        key, found = key_of(medium, limits), dict[str, Stored]()
        for name in encoders:
            if stored := self._stores[name].find(key):
                found[name] = stored
            elif self._missing == "raise":
                problem = f"expected features of {medium.name}, found none"
                fix = "add them with mmbridge data cache, or set features.missing to encode"
                raise FeatureError(self._stores[name].folder, problem, fix)
        return found


def open_features(
    folder: Path, encoders: Mapping[str, EncoderConfig], missing: Literal["encode", "raise"]
) -> FeatureCache:
    """The features of these encoders in a folder that ``mmbridge data cache`` wrote.

    Raises:
        FeatureError: an encoder's are missing, not finished, made with something else, or a shard of them is cut off.
    """
    stores = {}
    for name, config in encoders.items():
        require_origin(folder / name, origin_of(config))
        stores[name] = FeatureStore(folder / name)
    return FeatureCache(stores, missing)
