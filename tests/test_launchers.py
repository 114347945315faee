"""Runs of several processes as users start them: torchrun, the deepspeed launcher, killed and resumed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from torch import nn

from mmbridge import Bridge, checkpoint
from mmbridge.recipe import Recipe
from mmbridge.train import train
from tests.processes import free_port
from tests.test_train import curve, equal, lines, validated, weights
from tests.tiny_bridge import tiny_recipe, tiny_stage

STEPS = 24
DATA = {"mix": [{"kind": "files", "path": "DATA", "task": "caption"}], "workers": 1}


def recipe(parts: Path, batch: int) -> Recipe:
    """Two stages of steps of 4 samples, past the end of an epoch of 16; the second has dropout and a validation."""
    common: dict[str, Any] = {"batch": batch, "steps": STEPS, "checkpoint": {"every": 1}, "data": DATA}
    second = tiny_stage("instruct", script="instruct", validation=validated(metric="loss"), **common)
    second["train"] = ["connectors.*", "llm.*lora*"]
    llm = {"path": str(parts / "llm"), "lora": {"rank": 2, "alpha": 4, "dropout": 0.3}}
    return tiny_recipe(parts, tiny_stage(**common), second, llm=llm, log={"tensorboard": False, "every": 1})


def command(launcher: Sequence[str], path: Path, run: Path, *overrides: str) -> list[str]:
    return [sys.executable, "-m", *launcher, "mmbridge", "train", str(path), "--out", str(run), *overrides]


def torchrun() -> list[str]:
    return ["torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}", "-m"]


def launched(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def written(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(recipe(parts, batch=2).dump())
    return path


@pytest.fixture(scope="module")
def whole(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that was never stopped, under ZeRO-2."""
    run = tmp_path_factory.mktemp("whole") / "run"
    done = launched(command(torchrun(), written, run, *ZERO_2))
    assert done.returncode == 0, done.stderr
    return run


ZERO_2 = ("engine.kind=deepspeed", "engine.zero_stage=2")


def keys(folder: Path) -> list[str]:
    with safe_open(folder / "bridge.safetensors", "pt") as file:
        return sorted(file.keys())


@pytest.mark.slow
def test_torchrun_leaves_what_one_process_leaves(parts: Path, whole: Path, tmp_path: Path) -> None:
    train(recipe(parts, batch=4), tmp_path / "one")
    for stage in ("align", "instruct"):
        one, two = (run / "stages" / stage for run in (tmp_path / "one", whole))
        assert sorted(each.name for each in one.iterdir()) == sorted(each.name for each in two.iterdir())
        assert keys(one) == keys(two)
    assert curve(whole / "stages/align") == pytest.approx(curve(tmp_path / "one/stages/align"), rel=1e-5)
    assert len(lines(whole / "stages/align")) == STEPS  # written by one of the two
    script = (
        f"import sys; sys.modules['deepspeed'] = None; import mmbridge; mmbridge.Bridge.from_pretrained({str(whole)!r})"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("optim", [{"lr": 1e-2}, {"kind": "muon", "lr": 1e-2}])
def test_one_process_needs_no_launcher(optim: dict[str, Any], parts: Path, tmp_path: Path) -> None:
    """What was sharded is whole again: the bridge answers, its folder is that of plain torch; torch is as it was."""
    linear = nn.functional.linear
    found = list[tuple[list[float], str, list[str]]]()
    engines: list[dict[str, Any]] = [{"kind": "torch"}]
    engines += [{"kind": "deepspeed", "zero_stage": stage} for stage in range(4)]
    for engine in engines:
        out = tmp_path / str(len(found))
        bridge = train(tiny_recipe(parts, tiny_stage(optim=optim), engine={**engine, "device": "cpu"}), out)
        assert nn.functional.linear is linear
        text = bridge.caption(parts / "data" / "000.png").text
        found.append((curve(out / "stages/align"), text, keys(out / "bridge")))
        assert bridge.caption(parts / "data" / "000.png").text == text
        assert Bridge.from_pretrained(out, device="cpu").caption(parts / "data" / "000.png").text == text
    expected = found[0]
    for losses, text, names in found[1:]:
        assert losses == pytest.approx(expected[0], rel=1e-5)
        assert (text, names) == expected[1:]


@pytest.mark.slow
def test_the_deepspeed_launcher(written: Path, whole: Path, tmp_path: Path) -> None:
    launcher = ["deepspeed.launcher.runner", "--num_gpus=2", f"--master_port={free_port()}", "--module"]
    done = launched(command(launcher, written, tmp_path / "run", *ZERO_2))
    assert done.returncode == 0, done.stderr
    for stage in ("align", "instruct"):
        assert equal(weights(tmp_path / "run/stages" / stage), weights(whole / "stages" / stage))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_two_processes_stopped_anywhere_go_on_to_the_bit(
    how: signal.Signals, written: Path, whole: Path, tmp_path: Path
) -> None:
    """One process killed outright takes the other with it; a polite signal to the launcher reaches both."""
    run = tmp_path / "run"
    for stage, step in (("align", 2), ("instruct", 3)):
        arguments = command(torchrun(), written, run, *ZERO_2, "--resume")
        stopped(arguments, run / "stages" / f"{stage}.partial" / "checkpoints", step, how)
    done = launched(command(torchrun(), written, run, *ZERO_2, "--resume"))
    assert done.returncode == 0, done.stderr
    for stage in ("align", "instruct"):
        assert curve(run / "stages" / stage) == curve(whole / "stages" / stage)
        assert equal(weights(run / "stages" / stage), weights(whole / "stages" / stage))


@pytest.mark.slow
def test_one_process_goes_on_where_two_were_stopped(written: Path, whole: Path, tmp_path: Path) -> None:
    """With plain torch instead of ZeRO, and batches twice as large: the steps have the same samples."""
    run = tmp_path / "run"
    arguments = command(torchrun(), written, run, *ZERO_2, "--stage", "align")
    stopped(arguments, run / "stages" / "align.partial" / "checkpoints", 2, signal.SIGKILL)
    alone = [sys.executable, "-m", "mmbridge", "train", str(written), "--out", str(run), "--stage", "align", "--resume"]
    refused = launched(alone)
    assert refused.returncode == 2
    assert "stages.align.batch: expected batch × accumulate × processes to be 4 as in" in refused.stderr
    done = launched([*alone, "stages.align.batch=4", "stages.instruct.batch=4"])
    assert done.returncode == 0, done.stderr
    assert curve(run / "stages/align") == pytest.approx(curve(whole / "stages/align"), rel=1e-5)


def stopped(arguments: Sequence[str], checkpoints: Path, step: int, how: signal.Signals) -> None:
    """Runs until there is a checkpoint of this step, and a little longer: the second process, or all, are stopped."""
    environment, quiet = os.environ | {"OMP_NUM_THREADS": "1"}, subprocess.DEVNULL
    with subprocess.Popen(arguments, env=environment, stdout=quiet, stderr=quiet) as process:
        deadline = time.monotonic() + 240
        while max(checkpoint.steps(checkpoints), default=0) < step and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if process.poll() is None:
            os.kill(children(process.pid)[-1] if how is signal.SIGKILL else process.pid, how)


def children(process: int) -> list[int]:
    found = Path(f"/proc/{process}/task/{process}/children")
    return [int(each) for each in found.read_text().split()] if found.exists() else []
