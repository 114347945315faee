"""The LLM's section of a recipe, and the options of generation. Imports neither torch nor transformers."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from mmbridge.config import Config
from mmbridge.frozen import locate
from mmbridge.llm.templates import TemplateName

if TYPE_CHECKING:
    from mmbridge.llm.model import LanguageModel

Quantization = Literal["int8", "nf4"]


class LoRAConfig(Config):
    """Low-rank adapters inside the frozen LLM (LoRA, arXiv 2106.09685)."""

    rank: int = Field(gt=0)
    alpha: float = Field(gt=0)
    """The adapters' output is scaled by ``alpha / rank``."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Ends of module names, such as ``q_proj``, or every linear layer but the output head."""


class LLMConfig(Config):
    """A causal language model of the transformers library."""

    path: str
    """Hub id, local folder or ``world:NAME``; of a LLaVA folder the language model inside is taken."""
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    quantization: Quantization | None = None
    """Bits of the weights of linear maps, the output head's aside: 8 (LLM.int8()) or 4 (QLoRA's NF4). They stay frozen;
    all else is in ``dtype``. Needs the extra ``quant``."""
    template: TemplateName | None = None
    """A named chat template for a model that has none, or in place of its own."""
    separator: str = "\n"
    """What stands between a medium and the text that follows it, where the template does not write it itself."""
    system: str | None = None
    """The system message of conversations that bring none."""
    max_length: int = Field(default=2048, gt=0)
    """Longest sequence in positions, perceptual tokens included; a longer sample is an error."""
    lora: LoRAConfig | None = None
    mask: str | None = None
    """A file of weights of linear layers that are zero for good (``mmbridge.recipes.subnetwork`` makes some); LoRA's
    adapters are not."""

    @model_validator(mode="after")
    def _whole_weights(self) -> Self:
        if self.mask is not None and self.quantization is not None:
            raise ValueError("a mask needs whole weights: set quantization to null, or leave the mask out")
        return self

    def located(self) -> Path:
        """The folder it is in.

        Raises:
            RecipeError: it cannot be found.
        """
        return locate(self.path, self.revision)

    def build(self) -> "LanguageModel":
        """Load the model and its tokenizer, frozen but for LoRA's adapters, its weights masked if asked.

        Raises:
            RecipeError: the path, the checkpoint, its chat template, the LoRA targets, the quantisation or the mask
                cannot be used.
        """
        from mmbridge.llm.loading import load

        return load(self)


class GenerationOptions(Config):
    """How text is generated: greedily unless ``beams`` or ``temperature`` say otherwise."""

    max_new_tokens: int = Field(default=64, gt=0)
    beams: int = Field(default=1, gt=0)
    temperature: float = Field(default=0.0, ge=0.0)
    """Zero takes the likeliest token; above zero tokens are sampled."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Sample among the likeliest tokens that together have this probability."""
    seed: int = 0
    """Of the sampling noise; a prompt's text depends on it and not on the rest of its batch."""

    @model_validator(mode="after")
    def _one_search(self) -> Self:
        if self.beams > 1 and self.temperature > 0:
            raise ValueError("beams need temperature 0: either search with beams or sample")
        return self
