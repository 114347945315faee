"""The encoders there are: the union ``EncoderConfig`` is the list."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from mmbridge.config import Config
from mmbridge.frozen import locate

if TYPE_CHECKING:
    from mmbridge.encoders.vision import VisionEncoder

Tokens = Literal["all", "patches", "cls", "pooled"]
Aspect = Literal["own", "pad", "tiles"]


class VisionConfig(Config):
    """What the vision encoders of all libraries share."""

    path: str
    """A hub id, a local folder, or ``world:NAME`` for an encoder shipped with the package."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    layer: int | tuple[int, ...] = -1
    """Hidden state tapped, counted as in transformers' ``hidden_states``: 0 is what enters the first block, k what
    leaves block k, -1 what leaves the last one, before any final norm. Several are joined on the width."""
    norm: bool = False
    """Whether the encoder's own final norm is applied to what is tapped, as BLIP-2 does and LLaVA does not."""
    tokens: Tokens = "patches"
    """Which tokens: all of them, the grid's, the CLS token alone, or the library's pooled output."""
    aspect: Aspect = "own"
    """How an image becomes square: as the encoder was trained (own), padded with its mean colour as in LLaVA-1.5
    (pad), or as a thumbnail and tiles as in LLaVA-NeXT (tiles)."""
    pinpoints: tuple[tuple[int, int], ...] = ()
    """Heights and widths in pixels that tiles may cover together; empty means LLaVA-NeXT's five, scaled to this
    encoder's input: 1×2, 2×1, 2×2, 3×1 and 1×3 tiles."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the encoder computes in, and what its features come in."""

    def located(self) -> Path:
        """The folder it is in.

        Raises:
            RecipeError: it cannot be found.
        """
        return locate(self.path, self.revision)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.layer == ():
            raise ValueError("layer: expected at least one hidden state, found none")
        if self.tokens == "pooled" and (self.layer != -1 or self.norm):
            raise ValueError("tokens: the pooled output has no layer or norm to choose; leave both out")
        if self.pinpoints and self.aspect != "tiles":
            raise ValueError(f"pinpoints: only aspect tiles reads them, found aspect {self.aspect}")
        return self


class OpenCLIPConfig(VisionConfig):
    """The vision tower of an open_clip model."""

    kind: Literal["open_clip"] = "open_clip"

    def build(self) -> "VisionEncoder":
        from mmbridge.encoders.open_clip import OpenCLIPEncoder

        return OpenCLIPEncoder(self)


class TimmConfig(VisionConfig):
    """A vision transformer of timm."""

    kind: Literal["timm"] = "timm"

    def build(self) -> "VisionEncoder":
        from mmbridge.encoders.timm import TimmEncoder

        return TimmEncoder(self)


class TransformersConfig(VisionConfig):
    """A vision transformer of transformers, alone or inside a larger model such as CLIP, BLIP-2 or LLaVA."""

    kind: Literal["transformers"] = "transformers"

    def build(self) -> "VisionEncoder":
        from mmbridge.encoders.transformers import TransformersEncoder

        return TransformersEncoder(self)


EncoderConfig = Annotated[OpenCLIPConfig | TimmConfig | TransformersConfig, Field(discriminator="kind")]
