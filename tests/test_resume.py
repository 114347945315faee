"""A stage that was cut short and resumed takes the steps of one that was not, to the bit."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from mmbridge import checkpoint
from mmbridge.data import parquet
from mmbridge.errors import UserError
from mmbridge.objectives.next_token import NextToken
from mmbridge.recipe import Recipe
from mmbridge.train import train
from tests.data.parquets import captions
from tests.test_train import curve, equal, lines, validated, weights
from tests.tiny_bridge import tiny_recipe, tiny_stage

LORA = {"rank": 2, "alpha": 4, "dropout": 0.3}


def recipe(parts: Path, **changes: Any) -> Recipe:
    """All that has a state: Muon and AdamW, a schedule, dropout, validation, two batches a step, data left out."""
    stage = {
        "script": "instruct",
        "train": ["connectors.*", "llm.*lora*"],
        "optim": {"kind": "muon", "lr": 1e-2},
        "schedule": {"kind": "cosine", "warmup": 2},
        "validation": validated(every=3, metric="loss"),
        "accumulate": 2,
        "steps": 8,
        "batch": 2,
        "checkpoint": {"every": 2},
    } | changes
    llm = {"path": str(parts / "llm"), "lora": LORA}
    return tiny_recipe(parts, tiny_stage("instruct", **stage), llm=llm, log={"tensorboard": True, "every": 1})


@pytest.fixture(scope="module")
def whole(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(recipe(parts), folder)
    return folder / "stages" / "instruct"


def at_call(where: int, then: Callable[[], None]) -> Callable[..., Any]:
    """``NextToken.terms`` that does something when it is called for the ``where``-th time."""
    calls, terms = [0], NextToken.terms

    def counted(self: NextToken, batch: Any) -> int:
        calls[0] += 1
        if calls[0] == where:
            then()
        return terms(self, batch)

    return counted


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def crash() -> None:
    raise MemoryError("the machine is gone")


def same(run: Path, whole: Path) -> None:
    stage = run / "stages" / "instruct"
    assert curve(stage) == curve(whole)
    rates = {"samples_per_second": 0, "needed_tflops_per_second": 0}
    untimed = [[{**line, **rates} for line in lines(each)] for each in (stage, whole)]
    assert untimed[0] == untimed[1]
    assert equal(weights(stage), weights(whole))
    assert {each.name for each in (run / "stages").iterdir()} == {"instruct"}
    assert not (stage / "checkpoints").exists()


@pytest.mark.parametrize("calls", [1, 7, 13, 25])
def test_a_signal_keeps_the_step_under_way(
    calls: int, parts: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it strikes, validation included."""
    with monkeypatch.context() as patch:
        patch.setattr(NextToken, "terms", at_call(calls, stop))
        with pytest.raises(KeyboardInterrupt):
            train(recipe(parts), tmp_path / "run")
    partial = tmp_path / "run" / "stages" / "instruct.partial"
    done = [line["step"] for line in lines(partial)][-1]
    assert checkpoint.steps(partial / "checkpoints")[0] == done
    train(recipe(parts), tmp_path / "run", resume=True)
    same(tmp_path / "run", whole)


def test_a_crash_costs_the_steps_since_the_last_checkpoint(
    parts: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(NextToken, "terms", at_call(9, crash))
            with pytest.raises(MemoryError):
                train(recipe(parts), run, resume=True)
    assert "goes on after step" in capsys.readouterr().out
    train(recipe(parts), run, resume=True)
    same(run, whole)


def test_a_damaged_checkpoint_is_passed_over(
    parts: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(NextToken, "terms", at_call(16, crash))
        with pytest.raises(MemoryError):
            train(recipe(parts), run)
    folder = run / "stages" / "instruct.partial" / "checkpoints"
    newest, before = checkpoint.steps(folder)
    (folder / f"step-{newest:08d}" / checkpoint.TENSORS).write_bytes(b"\0" * 100)
    train(recipe(parts), run, resume=True)
    said = capsys.readouterr().out
    assert f"step-{newest:08d}" in said
    assert f"goes on after step {before}" in said
    same(run, whole)


def test_a_full_disk_ends_the_run_in_one_line(
    parts: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def full(tensors: Any, path: Path) -> None:
        if "00000004" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save_file(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        line = (
            r"checkpoints: the checkpoint of step 4 cannot be written \(No space left on device\); make room; --resume"
        )
        with pytest.raises(UserError, match=line):
            train(recipe(parts), run)
    assert checkpoint.steps(run / "stages" / "instruct.partial" / "checkpoints") == [2]
    train(recipe(parts), run, resume=True)
    same(run, whole)


def test_checkpoints_are_not_written_over_unasked(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(NextToken, "terms", at_call(5, stop))
        with pytest.raises(KeyboardInterrupt):
            train(recipe(parts), tmp_path / "run")
    with pytest.raises(UserError, match=r"found a run with checkpoints \(instruct\); --resume goes on with it"):
        train(recipe(parts), tmp_path / "run")


def test_early_stop_still_counts_its_patience(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best validation lies before the interruption, and its weights are those that are kept."""
    changes = {"validation": validated(every=1, metric="loss", patience=3), "optim": {"lr": 1e-30}}
    train(recipe(parts, **changes), tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(NextToken, "terms", at_call(9, stop))
        with pytest.raises(KeyboardInterrupt):
            train(recipe(parts, **changes), tmp_path / "run")
    train(recipe(parts, **changes), tmp_path / "run", resume=True)
    same(tmp_path / "run", tmp_path / "whole" / "stages" / "instruct")


@pytest.fixture(scope="module")
def over_parquet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A stage over more row groups than are open at a time, a few steps longer than an epoch of them."""
    pytest.importorskip("datasets", reason="needs the extra hf")
    file = captions(tmp_path_factory.mktemp("table") / "x.parquet", range(parquet.MOST + 6), rows=1, side=16)
    return {"data": {"mix": [{"kind": "files", "path": str(file), "task": "caption"}]}, "steps": 20}


@pytest.fixture(scope="module")
def whole_over_parquet(parts: Path, over_parquet: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole over parquet") / "run"
    train(recipe(parts, **over_parquet), folder)
    return folder / "stages" / "instruct"


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_crash_over_parquet(
    workers: int,
    parts: Path,
    over_parquet: dict[str, Any],
    whole_over_parquet: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those who go on read the row groups again, and draw from them in the same order."""
    over = recipe(parts, **with_workers(over_parquet, workers))
    with monkeypatch.context() as patch:
        patch.setattr(NextToken, "terms", at_call(29, crash))
        with pytest.raises(MemoryError):
            train(over, tmp_path / "run")
    train(over, tmp_path / "run", resume=True)
    same(tmp_path / "run", whole_over_parquet)


def with_workers(changes: dict[str, Any], workers: int) -> dict[str, Any]:
    return changes | {"data": {**changes["data"], "workers": workers}}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_killed_outright_over_parquet(
    workers: int, parts: Path, over_parquet: dict[str, Any], whole_over_parquet: Path, tmp_path: Path
) -> None:
    killed_and_resumed(recipe(parts, **with_workers(over_parquet, workers)), tmp_path)
    same(tmp_path / "run", whole_over_parquet)


def test_killed_outright_from_the_command_line(parts: Path, whole: Path, tmp_path: Path) -> None:
    """SIGKILL leaves nothing time to tidy up; the loader's workers go as well."""
    changes = {"data": recipe(parts).stages[0].data.model_dump(mode="json")}
    killed_and_resumed(recipe(parts, **with_workers(changes, 1)), tmp_path)
    same(tmp_path / "run", whole)


def killed_and_resumed(recipe: Recipe, folder: Path) -> None:
    """Trains into ``run``, by the command line, killed when the first checkpoint is there."""
    path, run = folder / "recipe.yaml", folder / "run"
    path.write_text(recipe.dump())
    command = [sys.executable, "-m", "mmbridge", "train", str(path), "--out", str(run)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        checkpoints = run / "stages" / "instruct.partial" / "checkpoints"
        deadline = time.monotonic() + 120
        while not checkpoint.steps(checkpoints) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
    shutil.copytree(run, folder / "as it was left")
    if not (run / "stages" / "instruct").exists():  # it may have been too fast for us
        subprocess.run([*command, "--resume"], check=True, stdout=subprocess.DEVNULL)
