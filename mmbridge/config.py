"""The base of every typed section of a recipe.

Config modules import neither torch nor transformers at module level: reading a recipe, listing what exists and
reporting a misspelt key all happen before either is needed. Each config has a ``build`` that imports what it builds.
"""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen section of a recipe: unknown keys are refused, and a docstring under a field describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)
