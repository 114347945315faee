"""What trains, by patterns."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mmbridge.bridge import Bridge
from mmbridge.errors import RecipeError
from mmbridge.llm.packing import Packing
from mmbridge.trainable import settle, unfreeze
from tests.tiny_bridge import tiny_recipe, tiny_stage


def chosen(parts: Path, train: list[str], within: tuple[str, ...] = ("connectors.", "llm."), **changes: Any) -> Bridge:
    llm = {"path": str(parts / "llm")} | changes.pop("llm", {})
    recipe = tiny_recipe(parts, tiny_stage(train=train, **changes), llm=llm)
    bridge = Bridge(recipe)
    unfreeze(bridge, recipe.stages[0], "stages.align", parts=within)
    return bridge


def trainable(bridge: Bridge) -> set[str]:
    return {name for name, each in bridge.named_parameters() if each.requires_grad}


def test_exactly_what_matches_trains(parts: Path) -> None:
    bridge = chosen(parts, ["connectors.*bias", "llm.*.1.mlp.up_proj*"])
    names = {f"connectors.image.projector.{index}.bias" for index in (0, 2)}
    found = trainable(bridge)
    assert {name for name in found if name.startswith("llm.")} == {"llm.model.model.layers.1.mlp.up_proj.weight"}
    assert len({name for name in found if name.startswith("connectors.")}) == len(names)
    assert bridge.unfrozen == {"llm.model.model.layers.1.mlp.up_proj.weight"}


def test_adapters_stay_frozen_unless_named(parts: Path) -> None:
    lora = {"lora": {"rank": 2, "alpha": 2}}
    assert not any("lora" in name for name in trainable(chosen(parts, ["connectors.*"], llm=lora)))
    bridge = chosen(parts, ["*lora_*"], llm=lora)
    assert trainable(bridge) == {name for name, _ in bridge.named_parameters() if "lora_" in name} != set()


@pytest.mark.parametrize(
    ("train", "within", "line"),
    [
        (
            ["connector.*"],
            ("connectors.",),
            "stages.align.train.0: .*'connector.*', which matches none; near it are conn",
        ),
        (["connectors.*", "llm.*lora*"], ("llm.", "connectors."), "stages.align.train.1: .* which matches none"),
        (
            ["*"],
            ("connectors.", "llm."),
            "expected parameters within connectors.* and llm.*, found encoders.* stay frozen",
        ),
        (["*"], ("connectors.",), "expected parameters within connectors.*, found "),
        (["llm.*"], ("connectors.",), "found llm.* train in the script instruct"),
    ],
)
def test_what_may_not_train_is_one_line(parts: Path, train: list[str], within: tuple[str, ...], line: str) -> None:
    with pytest.raises(RecipeError, match=line):
        chosen(parts, train, within)


def test_float32_cannot_train_inside_bfloat16(parts: Path) -> None:
    with pytest.raises(RecipeError, match="expected precision bfloat16, found float32"):
        chosen(parts, ["llm.*"], llm={"dtype": "bfloat16"})


def test_afterwards_everything_is_frozen_and_as_wide_as_before(parts: Path) -> None:
    bridge = chosen(parts, ["connectors.*", "llm.*.1.*"], llm={"dtype": "bfloat16"}, precision="bfloat16")
    assert {each.dtype for each in bridge.llm.parameters()} == {torch.float32, torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16):
        bridge.llm.packing = Packing(bridge.llm)
    settle(bridge)
    assert bridge.llm.packing is None
    assert trainable(bridge) == set()
    assert {each.dtype for each in bridge.llm.parameters()} == {torch.bfloat16}
    assert {each.dtype for each in bridge.connectors.parameters()} == {torch.float32}
