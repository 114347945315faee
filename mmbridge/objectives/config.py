"""The objectives there are: the alias ``ObjectiveConfig`` is the list. Nothing here imports torch."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mmbridge.config import Config

if TYPE_CHECKING:
    from mmbridge.objectives.base import Objective


class NextTokenConfig(Config):
    """Cross-entropy of every supervised token given all before it."""

    kind: Literal["next_token"] = "next_token"
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """What the loss is multiplied by before the objectives are added up."""

    def build(self) -> "Objective":
        from mmbridge.objectives.next_token import NextToken

        return NextToken()


ObjectiveConfig = NextTokenConfig
