"""A LLaVA folder of transformers as a bridge: the recipe it amounts to, and its projector's weights.

Encoder and LLM are read from the folder where they are; nothing is copied. LLaVA-NeXT folders are read too, as an
encoder with tiles and a connector with a newline.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig

from mmbridge.connectors.config import ConnectorConfig, LinearConfig, MLPConfig, ProjectorConfig
from mmbridge.encoders.config import TransformersConfig
from mmbridge.errors import BridgeError, RecipeError
from mmbridge.frozen import locate, quietly, reading, safetensors_in
from mmbridge.llava.families import ACTIVATIONS, LLMS, NO_ACTIVATION, PROJECTOR, TOWERS, supported
from mmbridge.llm.config import LLMConfig
from mmbridge.recipe import Recipe

if TYPE_CHECKING:
    from mmbridge.bridge import Bridge

_PART = re.compile(r"(?:model\.)?(?:multi_modal_projector\.(linear_[12]\.(?:weight|bias))|(image_newline))")


def is_llava(folder: Path) -> bool:
    """Whether a folder holds a LLaVA or LLaVA-NeXT checkpoint of transformers."""
    try:
        model_type = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        return False
    return model_type in {"llava", "llava_next"}


def load_llava(path: str | Path, revision: str | None = None, dtype: str | None = None) -> "Bridge":
    """A bridge that computes what transformers' class computes from the same folder.

    Args:
        path: a folder or a hub id.
        revision: branch, tag or commit on the hub.
        dtype: what encoder and LLM compute in; what the folder stores its weights in when left out.

    Raises:
        RecipeError: no such folder, or a tower, projector or LLM that has no counterpart here.
        BridgeError: the projector's weights are missing or do not fit.
    """
    from mmbridge.bridge import Bridge

    recipe = read_recipe(path, revision, dtype)
    bridge = Bridge(recipe)
    state = _connector_state(locate(str(path), revision), recipe.connectors["image"])
    _load(bridge.connectors["image"], state, str(path))
    return bridge


def read_recipe(path: str | Path, revision: str | None = None, dtype: str | None = None) -> Recipe:
    """The recipe, without stages, whose bridge a LLaVA folder is.

    Raises:
        RecipeError: see ``load_llava``.
    """
    folder = locate(str(path), revision)
    with reading(folder, "transformers"), quietly():
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if config.model_type not in {"llava", "llava_next"}:
        raise RecipeError(path, f"expected a LLaVA folder, found {config.model_type}")
    _refuse_strangers(path, config)
    named: dict[str, Any] = {"path": str(folder.resolve()) if Path(path).exists() else str(path), "revision": revision}
    named["dtype"] = dtype or _dtype(config)
    tiled = config.model_type == "llava_next"
    return Recipe(
        name="llava",
        about=f"A {'LLaVA-NeXT' if tiled else 'LLaVA'} checkpoint of transformers.",
        encoders={"vision": TransformersConfig(**named, **_encoder_options(path, config, tiled))},
        connectors={
            "image": ConnectorConfig(encoders=("vision",), projector=_projector(path, folder, config), newline=tiled)
        },
        llm=LLMConfig(**named, max_length=config.text_config.max_position_embeddings),
        stages=(),
    )


def _refuse_strangers(path: str | Path, config: PretrainedConfig) -> None:
    tower, llm = config.vision_config.model_type, config.text_config.model_type
    if tower not in TOWERS:
        raise RecipeError(path, f"expected a vision tower of {supported(TOWERS)}, found {tower}")
    if llm not in LLMS:
        raise RecipeError(path, f"expected an LLM of {supported(LLMS)}, found {llm}")


def _encoder_options(path: str | Path, config: PretrainedConfig, tiled: bool) -> dict[str, Any]:
    layer, strategy = config.vision_feature_layer, config.vision_feature_select_strategy
    has_cls = config.vision_config.model_type == "clip_vision_model"
    if strategy == "default" and not has_cls:
        problem = "expected vision_feature_select_strategy full for a tower without CLS token, found default"
        raise RecipeError(path, problem, "transformers would leave out the first patch")
    if strategy == "full" and has_cls and tiled:
        raise RecipeError(path, "expected vision_feature_select_strategy default for a tiled CLIP tower, found full")
    options: dict[str, Any] = {"layer": layer if isinstance(layer, int) else tuple(layer)}
    options["tokens"] = "all" if strategy == "full" and has_cls else "patches"
    if tiled:
        pinpoints = tuple((height, width) for height, width in config.image_grid_pinpoints)
        options |= {"aspect": "tiles", "pinpoints": pinpoints}
    return options


def _projector(path: str | Path, folder: Path, config: PretrainedConfig) -> ProjectorConfig:
    bias, activation = config.multimodal_projector_bias, config.projector_hidden_act
    if activation == NO_ACTIVATION:
        second = _weights(folder)
        weight, shift = second.get("linear_2.weight"), second.get("linear_2.bias", torch.zeros(1))
        if weight is None or not torch.equal(weight, torch.eye(len(weight), dtype=weight.dtype)) or shift.any():
            problem = "expected an identity as the second map of a projector without activation, found another"
            raise RecipeError(path, problem)
        return LinearConfig(bias=bias)
    ours = {theirs: name for name, theirs in ACTIVATIONS.items()}
    if activation not in ours:
        raise RecipeError(
            path, f"expected projector_hidden_act to be one of {supported(tuple(ours))}, found {activation}"
        )
    return MLPConfig(depth=2, activation=ours[activation], bias=bias)


def _dtype(config: PretrainedConfig) -> str:
    """What the weights are stored in, which is what transformers loads them in."""
    stored = config.dtype or config.text_config.dtype
    return "bfloat16" if stored == torch.bfloat16 else "float16" if stored == torch.float16 else "float32"


def _weights(folder: Path) -> dict[str, Tensor]:
    """``linear_1.weight`` and so on, and ``image_newline``, of whichever generation the names are."""
    found = {}
    for file in safetensors_in(folder):
        with safe_open(file, "pt") as stream:
            for name in stream.keys():  # noqa: SIM118 (not a mapping)
                if match := _PART.fullmatch(name):
                    found[match[1] or match[2]] = stream.get_tensor(name)
    return found


def _connector_state(folder: Path, config: ConnectorConfig) -> dict[str, Tensor]:
    weights = _weights(folder)
    linear = isinstance(config.projector, LinearConfig)
    state = {}
    for name, tensor in weights.items():
        if name == "image_newline":
            state["newline"] = tensor
        elif not linear:
            state[f"projector.{PROJECTOR[name]}"] = tensor
        elif name.startswith("linear_1"):
            state[f"projector.{name.replace('linear_1', 'linear')}"] = tensor
    return state


def _load(connector: torch.nn.Module, state: dict[str, Tensor], path: str) -> None:
    """Strictly; tensors take the connector's own dtype.

    Raises:
        BridgeError: a tensor is missing, left over or of another shape.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in connector.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            shapes = [f"shape {shapes[name]}" if name in shapes else "nothing" for shapes in (wanted, found)]
            raise BridgeError(path, f"expected {shapes[0]} for the connector's {name}, found {shapes[1]}")
    connector.load_state_dict(state)
