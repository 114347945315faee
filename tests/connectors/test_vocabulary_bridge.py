"""AlignVLM's projector in a bridge: mixtures of the LLM's own words, as the LLM reads them."""

from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from mmbridge.bridge import Bridge
from mmbridge.connector_flops import ConnectorFlops
from mmbridge.connectors.vocabulary import Vocabulary
from mmbridge.deepspeed_engine import DeepSpeedEngine
from mmbridge.engine_config import DeepSpeedEngineConfig
from mmbridge.errors import RecipeError
from mmbridge.evaluation.flops import executed_flops
from mmbridge.ranks import ALONE, together
from mmbridge.recipe import Recipe
from tests.tiny import tiny_llm
from tests.tiny_bridge import tiny_recipe, tiny_stage
from tests.tiny_step import QUESTION, batch_of, image, sample


def recipe(parts: Path, llm: Path | None = None) -> Recipe:
    connector = {"encoders": ["image"], "projector": {"kind": "vocabulary"}}
    changes = {} if llm is None else {"llm": {"path": str(llm)}}
    return tiny_recipe(parts, tiny_stage(), connectors={"image": connector}, **changes)


def projector(bridge: Bridge) -> Vocabulary:
    found = bridge.connectors["image"].get_submodule("projector")
    assert isinstance(found, Vocabulary)
    return found


@pytest.mark.parametrize("family", ["llama", "gemma"])
def test_perceptual_tokens_are_mixtures_of_what_the_llm_embeds(family: str, parts: Path, tmp_path: Path) -> None:
    """Of its embeddings as they go into its blocks, which Gemma scales."""
    bridge = Bridge(recipe(parts, tiny_llm(tmp_path / family, family)))
    batch = batch_of(bridge, sample(image(), QUESTION))
    with torch.no_grad():
        ((tokens,),) = bridge.perceive(batch).tokens
        weights = projector(bridge).weights(bridge.encode(batch)["image"].values)[0]
        words = bridge.llm.embed(torch.arange(len(bridge.llm.table)))
    assert_close(tokens, weights @ words)
    assert_close(weights.sum(1), torch.ones(len(weights)))


def test_it_starts_as_the_output_head(parts: Path) -> None:
    bridge = Bridge(recipe(parts))
    head = bridge.llm.head.get_parameter("weight")
    assert torch.equal(projector(bridge).head.weight, head)
    assert projector(bridge).head.weight.data_ptr() != head.data_ptr()


def test_it_trains_and_is_saved_without_the_words(parts: Path, tmp_path: Path) -> None:
    start = projector(Bridge(recipe(parts))).head.weight.clone()
    trained = recipe(parts).train(out=tmp_path / "run")
    loaded = Bridge.from_pretrained(tmp_path / "run", device="cpu")
    names = {name for name in loaded.own_tensors() if "projector" in name}
    assert {name.removeprefix("connectors.image.projector.") for name in names} == {
        "linear.weight", "linear.bias", "norm.weight", "norm.bias", "head.weight", "head_norm.weight", "head_norm.bias",
    }  # fmt: skip
    assert not torch.equal(projector(loaded).head.weight, start)
    batch = batch_of(loaded, sample(image(), QUESTION))
    assert torch.equal(loaded.perceive(batch).tokens[0][0], trained.perceive(batch).tokens[0][0])


@pytest.mark.parametrize("train", [["connectors.*"], ["connectors.image.projector.head_norm.*"]])
def test_flops_are_counted(train: list[str], parts: Path) -> None:
    """The mixture once and, where something learns, the logits a second time: to the last FLOP of the connector."""
    bridge = Bridge(recipe(parts))
    for name, each in bridge.named_parameters():
        each.requires_grad_(any(fnmatch(name, pattern) for pattern in train))
    features = bridge.encode(batch_of(bridge, sample(image(), QUESTION)))["image"]
    connector = bridge.connectors["image"]
    flops = ConnectorFlops(connector)
    assert executed_flops(lambda: connector(features).values.sum().backward()) == flops(None, again=True)
    assert flops(None, again=True) - flops(None) == 2 * features.values.shape[1] * bridge.llm.table.numel()


def test_sharded_words_are_refused(parts: Path) -> None:
    asked = recipe(parts)
    config = DeepSpeedEngineConfig(kind="deepspeed", device="cpu", zero_stage=3)
    with (
        together(alone=True),
        pytest.raises(RecipeError, match=r"^engine\.zero_stage: a projector into the LLM's"),
    ):
        DeepSpeedEngine(Bridge(asked), asked.stages[0], 1, "stages.align", ALONE, config)
