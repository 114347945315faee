"""mmbridge: frozen encoders bolted onto a frozen LLM through small trainable connectors.

``Bridge`` and ``Recipe`` are the public names; they are imported when first used, so that ``import mmbridge`` and
``mmbridge --help`` need neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmbridge.bridge import Bridge
    from mmbridge.recipe import Recipe

__version__ = "0.1.0"
__all__ = ["Bridge", "Recipe", "__version__"]

_HOME = {"Bridge": "mmbridge.bridge", "Recipe": "mmbridge.recipe"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'mmbridge' has no attribute {name!r}")
