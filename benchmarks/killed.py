"""Runs killed ten times and gone on with, beside one that was never stopped: ``python benchmarks/killed.py``.

The quickstart recipe on few scenes, both stages, past several epochs. Every process of the run is killed outright at a
random moment, ten times, and the run is resumed; its bridges must then be those of the whole run to the bit. In one
process and in two, under ZeRO-2, with 0, 1 and 3 loader workers. Writes ``results/killed.json``.
"""

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from record import Record
from safetensors.torch import load_file

STAGES = ("align", "instruct")
STEPS = 80


def command(out: Path, processes: int, workers: int) -> list[str]:
    """The run, in one process or under torchrun: 16 scenes a step in all, of 100."""
    launcher = ["-m"]
    if processes > 1:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}", "-m"]
    told = ["log.tensorboard=false", "engine.kind=deepspeed", "engine.zero_stage=2"]
    for stage in STAGES:
        told += [f"stages.{stage}.{key}" for key in (f"steps={STEPS}", f"batch={16 // processes}", "validation=null")]
        told += [f"stages.{stage}.{key}" for key in ("checkpoint.every=5", f"data.workers={workers}")]
        told += [
            f"stages.{stage}.optim.kind=adamw",
            f"stages.{stage}.optim.lr=1e-3",
            f"stages.{stage}.data.mix.0.count=100",
        ]
    return [sys.executable, *launcher, "mmbridge", "train", "quickstart", "--out", str(out), "--resume", *told]


def steps(out: Path) -> int:
    """How many the run has taken, in both stages."""
    logs = [file for stage in STAGES for file in out.glob(f"stages/{stage}*/metrics.jsonl")]
    return sum(file.read_bytes().count(b"\n") for file in logs)


def lived(arguments: list[str], out: Path, longest: float) -> int:
    """Starts the run and kills it up to ``longest`` seconds after its first new step; returns how far it has come.

    A run that ends before is not killed: 0.
    """
    before = steps(out)
    quiet = subprocess.DEVNULL
    with subprocess.Popen(arguments, stdout=quiet, stderr=quiet, start_new_session=True) as process:
        while steps(out) == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(random.uniform(0, longest))
        if process.poll() is not None:
            return 0
        _kill(process.pid)
    return steps(out)


def _kill(leader: int) -> None:
    """Kills a process and all below it: a launcher's processes lead groups of their own."""
    below = [leader]
    for each in below:
        children = Path(f"/proc/{each}/task/{each}/children")
        below += [int(child) for child in children.read_text().split()] if children.exists() else []
    for each in below:
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            continue


def bridges(out: Path) -> list[dict[str, Any]]:
    return [load_file(out / "stages" / stage / "bridge.safetensors") for stage in STAGES]


def trial(folder: Path, processes: int, workers: int, kills: int) -> dict[str, Any]:
    """One run left alone, one killed; where it was killed, and whether the two are equal to the bit."""
    whole, killed = folder / f"whole-{processes}", folder / f"killed-{processes}-{workers}"
    subprocess.run(command(whole, processes, workers=0), check=True, stdout=subprocess.DEVNULL)
    at = list[int]()
    while len(at) < kills and (step := lived(command(killed, processes, workers), killed, 4.0)):
        at.append(step)
    subprocess.run(command(killed, processes, workers), check=True, stdout=subprocess.DEVNULL)
    same = all(
        one.keys() == other.keys() and all(torch.equal(each, other[name]) for name, each in one.items())
        for one, other in zip(bridges(whole), bridges(killed), strict=True)
    )
    return {"killed after steps": at, "identical": same}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 3])
    given = parser.parse_args()

    random.seed(0)
    record = Record("killed")
    with tempfile.TemporaryDirectory() as folder:
        for processes in given.processes:
            for workers in given.workers:
                key = f"{processes} processes, {workers} workers"
                if key not in record.figures:
                    record.keep(key, trial(Path(folder), processes, workers, given.kills))
                print(key, record.figures[key], flush=True)


if __name__ == "__main__":
    main()
