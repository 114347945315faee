"""What of a bridge has a counterpart in transformers' LLaVA class, by the names each side gives it."""

from collections.abc import Mapping

from mmbridge.connectors.config import Activation

TOWERS = {"clip_vision_model": "CLIP", "siglip_vision_model": "SigLIP"}
"""Vision towers by the ``model_type`` of their configuration."""

LLMS = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "phi", "phi3")
"""LLMs by the ``model_type`` of their configuration. transformers' own class fails on others, OPT and GPT-2 among
them: it looks for a bare decoder and an output head without a bias."""

ACTIVATIONS: Mapping[Activation, str] = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "relu": "relu",
    "silu": "silu",
}

NO_ACTIVATION = "linear"
"""Makes the two maps of LLaVA's projector one: with an identity as the second, it is a linear projector, exactly."""

PROJECTOR = {f"linear_{index + 1}.{part}": f"linears.{index}.{part}" for index in (0, 1) for part in ("weight", "bias")}
"""LLaVA's projector parameters to those of an MLP of depth 2."""


def supported(names: Mapping[str, str] | tuple[str, ...]) -> str:
    return ", ".join(names)
