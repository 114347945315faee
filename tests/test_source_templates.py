"""Sources of a mixture with prompt templates of their own, against bridges that have each template for everything."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from mmbridge.batches import training_batches
from mmbridge.bridge import Bridge
from mmbridge.data.batch import Batch
from mmbridge.data.config import DataConfig
from mmbridge.errors import RecipeError
from mmbridge.llm.packing import CALL
from mmbridge.llm.templates import TemplateName
from mmbridge.recipe import Recipe
from mmbridge.stage import ValidationConfig
from mmbridge.torch_engine import TorchEngine
from mmbridge.trainable import unfreeze
from tests.tiny_bridge import tiny_recipe, tiny_stage

CAPTIONS: dict[str, Any] = {"kind": "files", "path": "DATA", "task": "caption"}
QUESTIONS: dict[str, Any] = {"kind": "files", "path": "DATA", "task": "vqa"}
MIX: dict[str, Any] = {"mix": [{**CAPTIONS, "template": "plain"}, QUESTIONS]}


def mixed(parts: Path, **changes: Any) -> Recipe:
    return tiny_recipe(parts, tiny_stage(data=MIX, batch=8, **changes))


def first_batch(bridge: Bridge, recipe: Recipe) -> Batch:
    batches, _ = training_batches(bridge, recipe.stages[0], seed=3)
    (batch,) = next(iter(batches.steps()))
    return batch


@pytest.mark.parametrize("workers", [0, 1])
def test_each_source_is_written_in_its_own(workers: int, parts: Path) -> None:
    recipe = tiny_recipe(parts, tiny_stage(data=MIX | {"workers": workers}, batch=8))
    bridge, captioner = Bridge(recipe), Bridge(recipe, "plain")
    batch = first_batch(bridge, recipe)
    expected = [(bridge if each.template is None else captioner).prompter.training(each).text for each in batch.samples]
    assert [prompt.text for prompt in batch.prompts] == expected
    assert {each.template for each in batch.samples} == {None, "plain"}


@pytest.mark.parametrize("packed", [True, False])
def test_a_mixed_batch_has_the_sum_of_both_losses(packed: bool, parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gradient is that of each template's samples in a bridge that knows no other."""
    monkeypatch.setitem(CALL, "cpu", 0)
    recipe = mixed(parts, packing=packed)

    def gradient(template: TemplateName | None, batch: Batch | None = None) -> tuple[torch.Tensor, torch.Tensor, Batch]:
        bridge = Bridge(recipe, template)
        unfreeze(bridge, recipe.stages[0], "stages.align", parts=["connectors."])
        engine = TorchEngine(bridge, recipe.stages[0], 1, "stages.align")
        if batch is None:
            batch = first_batch(bridge, recipe)
        else:
            batch = bridge.collate(templates=["plain"])([each for each in batch.samples if each.template == template])
        loss = engine.losses(batch, [1])
        engine.backward(loss)
        return loss.detach(), torch.cat([each.grad.flatten() for each in bridge.connectors.parameters()]), batch  # type: ignore[union-attr]

    loss, whole, batch = gradient(None)
    own, plain = gradient(None, batch), gradient("plain", batch)
    assert_close(loss, own[0] + plain[0], rtol=1e-5, atol=0)
    assert (whole - own[1] - plain[1]).norm() <= 1e-5 * whole.norm()


def test_texts_drawn_together_share_it(parts: Path) -> None:
    data = json.loads(json.dumps(MIX).replace('"DATA"', json.dumps(str(parts / "data"))))
    source = DataConfig.model_validate({"mix": [{**data["mix"][0], "task": "all", "together": 2}]}).mix[0].build()
    drawn = [source[index] for index in range(len(source))]
    assert {each.template for first in drawn for each in (first, *first.others)} == {"plain"}


@pytest.mark.parametrize(
    "source", [{"kind": "world", "count": 2, "template": "qa"}, {"kind": "digits", "template": "qa"}]
)
def test_all_kinds_of_sources_have_one(source: dict[str, Any]) -> None:
    data = DataConfig.model_validate({"mix": [source]})
    assert data.templates == {"qa"}
    assert data.mix[0].build()[0].template == "qa"


def test_a_task_is_asked_in_the_stage_s_template() -> None:
    held_out = {"mix": [{"kind": "world", "count": 2, "template": "plain"}]}
    assert ValidationConfig.model_validate({"data": held_out, "every": 1}).data.templates == {"plain"}
    with pytest.raises(ValidationError, match="asked in the stage's template"):
        ValidationConfig.model_validate({"data": held_out, "every": 1, "metric": "vqa.accuracy"})


def test_no_such_template_is_one_line(parts: Path) -> None:
    stage = tiny_stage(data={"mix": [{**CAPTIONS, "template": "palin"}]})
    with pytest.raises((RecipeError, ValidationError), match="palin"):
        tiny_recipe(parts, stage)
