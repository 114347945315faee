"""A job over two machines of which one dies and comes back: two network namespaces, each with an address of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mmbridge import checkpoint
from mmbridge.recipe import Recipe
from mmbridge.train import train
from tests.test_launchers import recipe
from tests.test_train import curve, weights
from tests.tiny_bridge import tiny_recipe

MACHINES = {"one": "10.77.0.1", "two": "10.77.0.2"}
BEAT = "keep_alive_interval=1,keep_alive_max_attempt=2"
"""torchrun misses a machine after two seconds; after fifteen, left alone."""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def machines() -> Iterator[dict[str, str]]:
    """Namespaces by address, joined by a cable; making them takes rights that not every machine gives."""
    names = {name: f"mmbridge-{name}-{os.getpid()}" for name in MACHINES}
    try:
        for name in names.values():
            ip("netns", "add", name)
        one, two = names.values()
        ip("link", "add", "veth0", "netns", one, "type", "veth", "peer", "name", "veth0", "netns", two)
        for short, name in names.items():
            ip("-n", name, "addr", "add", f"{MACHINES[short]}/24", "dev", "veth0")
            for device in ("lo", "veth0"):
                ip("-n", name, "link", "set", device, "up")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {error}")
    yield names
    for name in names.values():
        ip("netns", "del", name)


def dies(machine: str) -> None:
    """Kills all that runs on it."""
    found = subprocess.run(["ip", "netns", "pids", machine], check=True, capture_output=True, text=True)
    for process in found.stdout.split():
        os.kill(int(process), signal.SIGKILL)


def align(folder: Path, batch: int) -> Recipe:
    """The first stage alone: dropout in the second differs between one process and two."""
    whole = recipe(folder, batch)
    return whole.model_copy(update={"stages": whole.stages[:1]})


def started(machine: str, path: Path, run: Path) -> subprocess.Popen[bytes]:
    """torchrun on one of the two machines."""
    short = machine.split("-")[1]  # torchrun finds machines by name, and here are no names, so addresses are given
    place = [f"--rdzv-endpoint={MACHINES['one']}:29400", f"--rdzv-conf=is_host={int(short == 'one')},{BEAT}"]
    place += [f"--local-addr={MACHINES[short]}"]
    meet = ["--rdzv-backend=c10d", *place, "--rdzv-id=job", "--max-restarts=3"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", *meet]
    command = [*launcher, "-m", "mmbridge", "train", str(path), "--out", str(run), "--resume"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "veth0"}
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # else torchrun 2.11 does not tell newcomers where to meet
    command = ["ip", "netns", "exec", machine, *command]
    with (path.parent / f"{short}.log").open("ab") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


@pytest.mark.slow
def test_a_machine_that_dies_and_comes_back(machines: dict[str, str], tmp_path: Path) -> None:
    tiny_recipe(tmp_path)
    path, run = tmp_path / "recipe.yaml", tmp_path / "run"
    path.write_text(align(tmp_path, batch=2).dump())
    first, second = (started(name, path, run) for name in machines.values())
    try:
        checkpoints = run / "stages" / "align.partial" / "checkpoints"
        deadline = time.monotonic() + 240
        while max(checkpoint.steps(checkpoints), default=0) < 2 and first.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        dies(machines["two"])
        second.wait()
        assert first.poll() is None
        time.sleep(8)  # machines are not back at once, and torchrun must have noticed
        second = started(machines["two"], path, run)
        codes = first.wait(timeout=240), second.wait(timeout=60)
        assert codes == (0, 0), "".join((tmp_path / f"{name}.log").read_text() for name in MACHINES)
    finally:
        for name in machines.values():
            dies(name)
    train(align(tmp_path, batch=4), tmp_path / "alone")
    found, expected = run / "stages" / "align", tmp_path / "alone" / "stages" / "align"
    assert curve(found) == pytest.approx(curve(expected), rel=1e-5)
    for name, each in weights(expected).items():
        torch.testing.assert_close(weights(found)[name], each, rtol=1e-4, atol=1e-5)
