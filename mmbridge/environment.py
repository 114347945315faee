"""What a run ran on: versions, commit, hardware, command, seed."""

import os
import platform
import shlex
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from mmbridge import __version__
from mmbridge.ranks import ALONE, Ranks
from mmbridge.recipe import Recipe

_PACKAGES = (
    "torch", "torchvision", "transformers", "open_clip_torch", "timm", "peft", "bitsandbytes", "tokenizers",
    "safetensors", "huggingface_hub", "numpy", "pillow", "pydantic",
)  # fmt: skip


def environment(recipe: Recipe, ranks: Ranks = ALONE) -> dict[str, Any]:
    """Everything besides the recipe that repeating a run needs, as JSON."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "seed": recipe.seed,
        "processes": ranks.count,
        "mmbridge": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "packages": packages(),
        "hardware": hardware(),
    }


def packages() -> dict[str, str]:
    """Versions of the libraries that figures depend on, where they are installed."""
    return {name: found for name in _PACKAGES if (found := _version(name))}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit(apart_from: str = "") -> str | None:
    """The commit this package was checked out at, marked where files have changed since; none once installed.

    Args:
        apart_from: a folder of the checkout in which changes do not count.
    """
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    without = [f":(exclude){apart_from}"] if apart_from else []
    try:
        found = [
            subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", ".", *without))
        ]
    except (OSError, subprocess.CalledProcessError):  # no git here, or no commit yet
        return None
    return found[0].strip() + (" with changes" if found[1].strip() else "")


def hardware() -> dict[str, Any]:
    """The machine, as JSON."""
    cuda = torch.cuda
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "accelerators": [cuda.get_device_name(index) for index in range(cuda.device_count())],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
