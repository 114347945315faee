"""A benchmark's results on disk: figures, and what made them."""

import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmbridge.environment import commit, hardware, packages

RESULTS = Path(__file__).parent / "results"


class Record:
    """``results/NAME.json``: figures under keys, kept as they are found, so that a stopped benchmark goes on.

    Figures of another commit are never mixed with new ones: the file starts anew when the commit differs. Results
    themselves may have changed since it.
    """

    def __init__(self, name: str, path: Path | None = None) -> None:
        self.path = path or RESULTS / f"{name}.json"
        self._made = {
            "commit": commit(apart_from="benchmarks/results"),
            "command": " ".join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
            "python": platform.python_version(),
            "packages": packages(),
            "hardware": hardware(),
        }
        found = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.figures: dict[str, Any] = found["figures"] if found.get("commit") == self._made["commit"] else {}

    def complete(self, pool: Executor, jobs: Mapping[str, Callable[[], Any]]) -> bool:
        """Runs the jobs whose figures are not there, and keeps those in their order; whether there were any."""
        work = {key: pool.submit(job) for key, job in jobs.items() if key not in self.figures}
        for key, each in work.items():
            self.keep(key, each.result())
        return bool(work)

    def keep(self, key: str, figures: Any) -> None:
        """Adds figures and writes the file: whole, or not at all."""
        self.figures[key] = figures
        written = {**self._made, "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "figures": self.figures}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(written, indent=1) + "\n")
        partial.replace(self.path)
