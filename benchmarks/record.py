"""A benchmark's results on disk: figures, and what made them."""

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("torch", "transformers", "open_clip_torch", "timm")


class Record:
    """``results/NAME.json``: figures under keys, kept as they are found, so that a stopped benchmark goes on.

    Figures of another commit are never mixed with new ones: the file starts anew when the commit differs.
    """

    def __init__(self, name: str, path: Path | None = None) -> None:
        self.path = path or RESULTS / f"{name}.json"
        made = {"commit": commit(), "command": " ".join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]])}
        machine = {"cores": os.cpu_count(), "processor": processor(), "python": platform.python_version()}
        found = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.figures: dict[str, Any] = found["figures"] if found.get("commit") == made["commit"] else {}
        self._made = made | {"machine": machine, "libraries": {name: version(name) for name in LIBRARIES}}

    def keep(self, key: str, figures: Any) -> None:
        """Adds figures and writes the file: whole, or not at all."""
        self.figures[key] = figures
        written = {**self._made, "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "figures": self.figures}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(written, indent=1) + "\n")
        partial.replace(self.path)


def commit() -> str:
    """The commit of the checkout, marked where files other than results differ from it."""
    found = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude,top)benchmarks/results")
    return f"{found or 'unknown'}{'+changes' if changed else ''}"


def _git(*arguments: str) -> str:
    run = subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return run.stdout.strip()


def processor() -> str:
    """The processor's name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
