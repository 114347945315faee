"""A bridge over a quantised LLM: it trains, stays frozen where it should, is kept without the LLM, and comes back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mmbridge.batches import training_batches
from mmbridge.bridge import Bridge
from mmbridge.engine_config import DeepSpeedEngineConfig
from mmbridge.errors import RecipeError
from mmbridge.llava import export_llava
from mmbridge.loop import fit
from mmbridge.memory_floor import memory_floor
from mmbridge.ranks import ALONE, together
from mmbridge.recipe import Recipe
from mmbridge.torch_engine import TorchEngine
from mmbridge.trainable import unfreeze
from tests.tiny import tiny_llm
from tests.tiny_bridge import tiny_recipe, tiny_stage

pytest.importorskip("bitsandbytes")

STEPS = 4
LORA = {"rank": 2, "alpha": 4}


@pytest.fixture(scope="module")
def wide(parts: Path) -> Path:
    """An LLM whose maps have whole blocks of NF4 in every row, and biases."""
    return tiny_llm(parts / "wide", "qwen2", hidden_size=64, intermediate_size=128)


def recipe(parts: Path, **llm: Any) -> Recipe:
    train = ["connectors.*", "*lora*"] if "lora" in llm else ["connectors.*"]
    stage = tiny_stage(train=train, script="instruct", steps=STEPS, precision=llm.pop("precision", "float32"))
    return tiny_recipe(parts, stage, llm={"path": str(parts / "wide")} | llm)


def trained(recipe: Recipe) -> tuple[Bridge, list[float]]:
    """After a few steps, with answers in between as validation has them."""
    stage, bridge = recipe.stages[0], Bridge(recipe)
    unfreeze(bridge, stage, "stages.align", parts=["connectors.", "llm."])
    batches, steps = training_batches(bridge, stage, 0)
    torch.manual_seed(0)
    engine, losses = TorchEngine(bridge, stage, steps, "stages.align"), []
    for step in fit(engine, batches.steps(), steps):
        losses.append(step.loss)
        assert step.grad_norm > 0
        bridge.eval().caption(picture(), max_new_tokens=2)
        bridge.train()
    return bridge, losses


def picture() -> Image.Image:
    return Image.linear_gradient("L").convert("RGB")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("lora", [{}, {"lora": LORA}], ids=["connectors", "lora"])
@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_what_is_frozen_stays_so_and_what_trains_comes_back(
    kind: str, lora: dict[str, Any], precision: str, parts: Path, wide: Path, tmp_path: Path
) -> None:
    given = recipe(parts, quantization=kind, precision=precision, **lora)
    before = Bridge(given).state_dict()
    bridge, losses = trained(given)
    assert losses[-1] < losses[0]
    changed = {name for name, each in bridge.state_dict().items() if not torch.equal(each, before[name])}
    assert changed == set(bridge.own_tensors())
    bridge.save_pretrained(tmp_path / "b")
    assert set(load_file(tmp_path / "b" / "bridge.safetensors")) == changed
    again = Bridge.from_pretrained(tmp_path / "b", device="cpu")
    assert all(torch.equal(each, again.state_dict()[name]) for name, each in bridge.state_dict().items())
    assert again.caption(picture(), max_new_tokens=8).text == bridge.eval().caption(picture(), max_new_tokens=8).text
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config["frozen"] == Bridge(recipe(parts)).sources


def test_it_needs_less_memory(parts: Path, wide: Path) -> None:
    whole, eight, four = (
        memory_floor(Bridge(recipe(parts, quantization=each)), 9, 3) for each in (None, "int8", "nf4")
    )
    assert four.weights < eight.weights < whole.weights
    assert (four.saved, four.logits) == (eight.saved, eight.logits) == (whole.saved, whole.logits)


def test_quantised_weights_do_not_train(parts: Path, wide: Path) -> None:
    given = recipe(parts, quantization="nf4")
    stage = given.stages[0].model_copy(update={"train": ("llm.*.1.mlp.up_proj*",)})
    line = r"expected float32 or bfloat16, found llm\.\S+ in uint8; train llm\.lora over it, or set llm\.quantization"
    with pytest.raises(RecipeError, match=line):
        unfreeze(Bridge(given), stage, "stages.align", parts=["llm."])


def test_a_quantised_llm_is_not_exported(parts: Path, wide: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"^llm\.quantization: a LLaVA folder holds whole weights, found int8$"):
        export_llava(Bridge(recipe(parts, quantization="int8")), tmp_path / "llava")


@pytest.mark.slow
def test_int8_is_not_sharded(parts: Path, wide: Path) -> None:
    given = recipe(parts, quantization="int8")
    bridge, stage = Bridge(given), given.stages[0]
    unfreeze(bridge, stage, "stages.align", parts=["connectors."])
    config = DeepSpeedEngineConfig(kind="deepspeed", device="cpu", zero_stage=3)
    with together(alone=True), pytest.raises(RecipeError, match=r"^engine\.zero_stage: .* whole in every process"):
        config.build(bridge, stage, STEPS, "stages.align", ALONE)
