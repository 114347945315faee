"""Figures reach every sink the recipe names, and every sink is closed."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmbridge.metrics_log import MetricsLog
from mmbridge.recipe import Recipe
from tests.tiny_bridge import tiny_stage


class Tracker:
    """Both trackers' interface, as far as it is used."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def init(self, *, project: str, name: str, config: Mapping[str, Any], **_: Any) -> "Tracker":
        self.calls.append(("init", project, name, config["seed"]))
        return self

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.calls.append((step, dict(values)))

    def finish(self) -> None:
        self.calls.append("finish")


def recipe(**log: Any) -> Recipe:
    raw = {
        "name": "tiny",
        "about": "a recipe for tests",
        "encoders": {"image": {"kind": "timm", "path": "a/b"}},
        "connectors": {"image": {"encoders": ["image"], "projector": {"kind": "linear"}}},
        "llm": {"path": "a/c"},
        "stages": [tiny_stage()],
        "log": log,
        "seed": 5,
    }
    return Recipe.model_validate(raw)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_trackers_get_the_steps_that_are_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    tracker = Tracker()
    monkeypatch.setitem(sys.modules, name, tracker)
    with MetricsLog(recipe(tensorboard=False, **{name: "colours"}), "align", tmp_path, tmp_path / "curves") as log:
        log.write(1, {"loss": 2.0}, everywhere=False)
        log.write(2, {"loss": 1.0}, everywhere=True)
    assert tracker.calls == [("init", "colours", "tiny/align", 5), (2, {"loss": 1.0}), "finish"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]
    assert not (tmp_path / "curves").exists()


def test_tensorboard_reads_the_curve(tmp_path: Path) -> None:
    with MetricsLog(recipe(), "align", tmp_path, tmp_path / "curves") as log:
        for step in (1, 2):
            log.write(step, {"loss": step / 2}, everywhere=True)
    events: Any = EventAccumulator(str(tmp_path / "curves"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5), (2, 1.0)]


def test_sinks_are_closed_when_training_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker()
    monkeypatch.setitem(sys.modules, "wandb", tracker)
    log = MetricsLog(recipe(tensorboard=False, wandb="colours"), "align", tmp_path, tmp_path / "curves")
    with pytest.raises(KeyboardInterrupt), log:
        raise KeyboardInterrupt
    assert tracker.calls[-1] == "finish"


def test_every_line_is_on_disk_at_once(tmp_path: Path) -> None:
    with MetricsLog(recipe(tensorboard=False), "align", tmp_path, tmp_path / "curves") as log:
        log.write(1, {"loss": 1.0}, everywhere=False)
        assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": 1.0}\n'
