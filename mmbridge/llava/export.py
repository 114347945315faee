"""A bridge as a LLaVA folder of transformers.

What is written computes what the bridge computes: a part without an exact counterpart in
``LlavaForConditionalGeneration`` is refused, never approximated. Everything is stored in the LLM's dtype.

A linear projector is written as LLaVA's two maps with no activation between and an identity as the second.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

from mmbridge.connectors.config import ConnectorConfig, LinearConfig, VocabularyConfig
from mmbridge.connectors.connector import Connector
from mmbridge.encoders.config import VisionConfig
from mmbridge.encoders.vision import VisionEncoder
from mmbridge.errors import RecipeError, UserError
from mmbridge.frozen import quietly
from mmbridge.llava.families import ACTIVATIONS, NO_ACTIVATION, PROJECTOR
from mmbridge.llava.language import IMAGE, LanguagePart, language_part
from mmbridge.llava.tower import TowerPart, tower_part

if TYPE_CHECKING:
    from mmbridge.bridge import Bridge


def export_llava(bridge: "Bridge", folder: Path | str) -> None:
    """Writes config, weights, processor, tokenizer and chat template for transformers and what reads its folders.

    Raises:
        RecipeError: the bridge has a part that LLaVA's class does not; the key at fault is named.
        UserError: the folder is not empty.
    """
    recipe = bridge.recipe
    if recipe.llm.quantization is not None:
        raise RecipeError("llm.quantization", f"a LLaVA folder holds whole weights, found {recipe.llm.quantization}")
    if len(recipe.connectors) != 1 or len(recipe.encoders) != 1:
        found = f"{len(recipe.encoders)} and {len(recipe.connectors)}"
        raise RecipeError("connectors", f"LLaVA has one encoder and one connector, found {found}")
    ((name, config),), ((seen, vision),) = recipe.connectors.items(), recipe.encoders.items()
    connector, encoder = bridge.connectors[name], bridge.encoders[seen]
    assert isinstance(connector, Connector)
    activation = _activation(f"connectors.{name}", config, bridge.llm.width)
    assert isinstance(encoder, VisionEncoder)
    assert isinstance(vision, VisionConfig)
    tower = tower_part(f"encoders.{seen}", vision, encoder)
    language = language_part(bridge.llm)
    model = _model(tower, language, connector, config, activation)
    processor = _processor(tower, language)
    with _appearing(Path(folder)) as temporary, quietly():
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)


def _model(
    tower: TowerPart, language: LanguagePart, connector: Connector, config: ConnectorConfig, activation: str
) -> LlavaForConditionalGeneration:
    assert not isinstance(config.projector, VocabularyConfig)
    bias = config.projector.bias
    whole = LlavaConfig(
        vision_config=tower.config,
        text_config=language.config,
        image_token_index=language.image_id,
        image_seq_length=connector.facts.tokens,
        projector_hidden_act=activation,
        vision_feature_select_strategy=tower.strategy,
        vision_feature_layer=tower.layer,
        multimodal_projector_bias=bias,
    )
    projector = _projector(connector, activation, bias)
    state = {f"model.vision_tower.{name}": tensor for name, tensor in tower.state.items()}
    state |= {f"model.multi_modal_projector.{name}": tensor for name, tensor in projector.items()}
    state |= language.state
    dtype = state["lm_head.weight"].dtype
    with torch.device("meta"):  # nothing is drawn at random only to be overwritten
        model = LlavaForConditionalGeneration(whole)
    model.load_state_dict({name: tensor.detach().to("cpu", dtype) for name, tensor in state.items()}, assign=True)
    model.tie_weights()
    model.config.dtype = dtype
    model.generation_config = language.generation
    return model


def _processor(tower: TowerPart, language: LanguagePart) -> Any:
    processor: Any = LlavaProcessor
    return processor(
        image_processor=tower.processor,
        tokenizer=language.tokenizer,
        patch_size=tower.config.patch_size,
        vision_feature_select_strategy=tower.strategy,
        chat_template=language.template,
        image_token=IMAGE,
        num_additional_image_tokens=tower.extra,
    )


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A folder that becomes ``folder`` at the end, or is dropped when something is raised.

    Raises:
        UserError: ``folder`` is there already and is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(folder, "expected a new or empty folder to export to, found something in its place")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        yield new
        os.replace(new, folder)


def _activation(key: str, config: ConnectorConfig, width: int) -> str:
    """LLaVA's name of what stands between its two maps.

    Raises:
        RecipeError: the connector is not one or two maps.
    """
    if config.medium != "image":
        raise RecipeError(f"{key}.medium", f"LLaVA reads images, found {config.medium}")
    if config.resampler.kind != "identity":
        raise RecipeError(f"{key}.resampler", f"LLaVA has no resampler, found {config.resampler.kind}")
    for name, found in (
        ("position", config.position != "none"),
        ("newline", config.newline),
        ("end_token", config.end_token),
    ):
        if found:
            raise RecipeError(f"{key}.{name}", f"LLaVA has no learned {name.replace('_', ' ')}, found one")
    projector = config.projector
    if isinstance(projector, VocabularyConfig):
        raise RecipeError(f"{key}.projector", "LLaVA's projector is one linear map or two, found a mixture of words")
    if isinstance(projector, LinearConfig) or projector.depth == 1:
        return NO_ACTIVATION
    if projector.depth != 2:
        raise RecipeError(
            f"{key}.projector.depth", f"LLaVA has a projector of one or two maps, found {projector.depth}"
        )
    if projector.hidden not in (None, width):
        problem = f"LLaVA's projector is as wide as the LLM ({width}) between its maps, found {projector.hidden}"
        raise RecipeError(f"{key}.projector.hidden", problem)
    return ACTIVATIONS[projector.activation]


def _projector(connector: Connector, activation: str, bias: bool) -> dict[str, Tensor]:
    state = connector.state_dict()
    ours = {name.removeprefix("projector."): state[name] for name in state if name.startswith("projector.")}
    if activation != NO_ACTIVATION:
        return {theirs: ours[name] for theirs, name in PROJECTOR.items() if name in ours}
    first = {f"linear_1.{name.rpartition('.')[2]}": tensor for name, tensor in ours.items()}
    weight = first["linear_1.weight"]
    second = {"linear_2.weight": torch.eye(len(weight))}
    return first | second | ({"linear_2.bias": torch.zeros(len(weight))} if bias else {})
