"""The encoders there are: the union ``EncoderConfig`` is the list."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from mmbridge.config import Config
from mmbridge.data.media_paths import VECTORS
from mmbridge.errors import RecipeError
from mmbridge.frozen import locate

if TYPE_CHECKING:
    from mmbridge.encoders.vectors import VectorEncoder
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


class VectorsConfig(Config):
    """Embeddings of items, users or anything else, which are features already; width and count are all there is."""

    kind: Literal["vectors"] = "vectors"
    path: str | None = None
    """A local table, .npy or .safetensors, whose vectors media are: it says the width, and a bridge trained for it
    refuses another. Media name their own files."""
    width: Annotated[int, Field(ge=1)] | None = None
    """How many numbers a vector has. Exactly one of path and width is given."""
    count: Annotated[int, Field(ge=1)] = 1
    """How many vectors a medium has, no more and no fewer."""
    normalise: bool = False
    """Whether vectors are scaled to length 1."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """What features come in."""

    @property
    def revision(self) -> None:
        """A table is local."""

    def located(self) -> Path | None:
        """The table, if there is one.

        Raises:
            RecipeError: it cannot be found, or is another kind of file.
        """
        if self.path is None:
            return None
        file = Path(self.path).expanduser()
        if not file.is_file():
            raise RecipeError(self.path, "expected a table of vectors, found no such file")
        if file.suffix not in VECTORS:
            raise RecipeError(self.path, f"expected a table of vectors, {' or '.join(VECTORS)}, found another file")
        return file

    def build(self) -> "VectorEncoder":
        from mmbridge.encoders.vectors import VectorEncoder

        return VectorEncoder(self)

    @model_validator(mode="after")
    def _one_width(self) -> Self:
        if (self.path is None) == (self.width is None):
            found = "neither" if self.width is None else "both"
            raise ValueError(f"width: expected exactly one of path and width, found {found}")
        return self


EncoderConfig = Annotated[OpenCLIPConfig | TimmConfig | TransformersConfig | VectorsConfig, Field(discriminator="kind")]
