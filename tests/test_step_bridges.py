"""Bridges kept along a stage are what the stage would have made of as many steps, under every engine."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mmbridge.bridge import Bridge
from mmbridge.cli.app import run
from mmbridge.engine import Engine
from mmbridge.errors import UserError
from mmbridge.recipe import Recipe
from mmbridge.recipe_file import parse
from mmbridge.step_bridges import StepBridges
from mmbridge.train import train
from tests import processes
from tests.test_ranks import ENGINES, SHARDED
from tests.tiny_bridge import tiny_data, tiny_recipe, tiny_stage

CONSTANT = {"schedule": {"kind": "constant", "warmup": 0}}


def recipe(parts: Path, engine: str = "torch", **stage: Any) -> Recipe:
    given: dict[str, Any] = {"steps": 4, "checkpoint": {"bridges": 2}} | CONSTANT | stage
    return tiny_recipe(parts, tiny_stage(**given), engine=(ENGINES | SHARDED)[engine])


def step_bridges(out: Path) -> list[Path]:
    return sorted((out / "stages" / "align" / "bridges").iterdir())


def same(first: Path, second: Path) -> bool:
    tensors = [load_file(each / "bridge.safetensors") for each in (first, second)]
    assert tensors[0].keys() == tensors[1].keys()
    return all(torch.equal(each, tensors[1][name]) for name, each in tensors[0].items())


def test_each_is_what_as_many_steps_make(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(recipe(parts), tmp_path / "long")
    train(recipe(parts, steps=2, checkpoint={}), tmp_path / "short")
    halfway, last = step_bridges(tmp_path / "long")
    assert (halfway.name, last.name) == ("step-00000002", "step-00000004")
    assert same(halfway, tmp_path / "short" / "bridge")
    assert same(last, tmp_path / "long" / "bridge")
    assert not same(halfway, last)
    assert not (tmp_path / "short" / "stages" / "align" / "bridges").exists()
    loaded = Bridge.from_pretrained(halfway, device="cpu")
    assert (loaded.stage, loaded.metrics) == ("align", {"steps": 2})

    capsys.readouterr()
    paths = [str(each) for each in (halfway, last)]
    data = str(tiny_data(tmp_path / "data", 12, distinct=True))
    assert run(["align", *paths, data, "--html", str(tmp_path / "over_training.html"), "--device", "cpu"]) == 0
    assert "step-00000002" in capsys.readouterr().out
    assert "step-00000004" in (tmp_path / "over_training.html").read_text()


def test_a_resumed_stage_keeps_the_same(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off between a bridge and the checkpoint behind it, so that the bridge is made once more."""
    whole, keep = recipe(parts, checkpoint={"bridges": 1, "every": 1}), StepBridges.__call__

    def cut(self: StepBridges, step: int, engine: Engine) -> None:
        keep(self, step, engine)
        if step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(StepBridges, "__call__", cut)
        with pytest.raises(KeyboardInterrupt):
            train(whole, tmp_path / "cut")
    assert len([*(tmp_path / "cut" / "stages" / "align.partial" / "bridges").iterdir()]) == 3
    train(whole, tmp_path / "cut", resume=True)
    train(whole, tmp_path / "whole")
    pairs = list(zip(step_bridges(tmp_path / "whole"), step_bridges(tmp_path / "cut"), strict=True))
    assert len(pairs) == 4
    assert all(same(*pair) for pair in pairs)


def test_what_does_not_train_is_there_as_well(parts: Path, tmp_path: Path) -> None:
    names = [name for name, _ in Bridge(recipe(parts)).named_parameters() if name.startswith("connectors.")]
    assert len(names) > 2
    train(recipe(parts, train=names[:1]), tmp_path / "run")
    halfway, last = step_bridges(tmp_path / "run")
    assert same(last, tmp_path / "run" / "bridge")
    assert not same(halfway, last)


@pytest.mark.parametrize(
    ("engine", "precision"),
    [
        ("torch", "bfloat16"),
        ("zero-1", "float32"),
        ("zero-2", "bfloat16"),
        ("zero-3", "float32"),
        ("zero-3 of all", "bfloat16"),
    ],
)
def test_two_processes_keep_what_they_end_with(engine: str, precision: str, parts: Path, tmp_path: Path) -> None:
    """Where parts of the LLM train as well."""
    given = recipe(parts, engine, precision=precision, train=["connectors.*", "llm.*.1.mlp*"], script="instruct")
    processes.together(_trained, given.dump(), str(tmp_path / "run"), folder=tmp_path / "found")
    halfway, last = step_bridges(tmp_path / "run")
    assert same(last, tmp_path / "run" / "bridge")
    assert not same(halfway, last)


def _trained(dumped: str, out: str) -> None:
    train(parse(dumped, "given"), out)


def test_no_room_is_one_line(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mmbridge.step_bridges.write", full)
    with pytest.raises(UserError, match=r"step-00000002: the bridge of step 2 cannot be written .*; make room"):
        train(recipe(parts), tmp_path / "run")
    assert not any((tmp_path / "run" / "stages" / "align.partial" / "bridges").iterdir())
