"""Figures reach every sink the recipe names, and every sink is closed."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmbridge.metrics_log import WANDB_RUN, MetricsLog
from mmbridge.recipe import Recipe
from tests.tiny_bridge import tiny_stage


class Tracker:
    """Both trackers' interface, as far as it is used."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.id = "abc"
        self.options: list[Any] = []

    def init(self, *, project: str, name: str, config: Mapping[str, Any], **options: Any) -> "Tracker":
        self.calls.append(("init", project, name, config["seed"]))
        self.options.append(options)
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


def test_a_stage_that_is_gone_on_with_goes_on_in_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb, trackio = Tracker(), Tracker()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    given = recipe(tensorboard=False, wandb="colours", trackio="colours")
    for first in (0, 2):
        with MetricsLog(given, "align", tmp_path, tmp_path / "runs" / "curves", first):
            pass
    assert [(each["id"], each["resume"]) for each in wandb.options] == [(None, None), ("abc", "allow")]
    assert [each["resume"] for each in trackio.options] == ["never", "allow"]


@pytest.mark.slow
def test_weights_and_biases_has_one_run_of_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its offline folders end in the id by which ``wandb sync`` puts them together."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    given, stages = recipe(tensorboard=False, wandb="colours"), tmp_path / "stages"
    for stage, first in (("align", 0), ("align", 2), ("instruct", 0)):
        folder = stages / stage
        folder.mkdir(parents=True, exist_ok=True)
        with MetricsLog(given, stage, folder, tmp_path / "tensorboard" / stage, first) as log:
            log.write(first + 1, {"loss": 1.0}, everywhere=True)
    ids = {stage: (stages / stage / WANDB_RUN).read_text() for stage in ("align", "instruct")}
    found = sorted(each.name.rpartition("-")[2] for each in (tmp_path / "wandb").glob("offline-run-*"))
    assert found == sorted([ids["align"], ids["align"], ids["instruct"]])
    assert ids["align"] != ids["instruct"]


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
