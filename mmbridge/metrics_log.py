"""Where the figures of a stage go: metrics.jsonl always; TensorBoard, Weights & Biases, trackio as the recipe says."""

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from mmbridge.errors import RecipeError
from mmbridge.recipe import LogConfig, Recipe

WANDB_RUN = "wandb_run"
"""The file with the id of a stage's run in Weights & Biases."""

Sink = Callable[[int, Mapping[str, float]], None]
"""Takes the figures of a step."""


class MetricsLog:
    """Writes figures to all sinks of a stage, and closes them however the stage ends.

    Every step is a line of ``metrics.jsonl``, flushed at once; the other sinks get every ``log.every``-th step, and
    whatever comes beside steps. A stage that is gone on with after ``first`` steps keeps what was written up to there,
    and goes on in the same run of a tracker: in the one whose id is kept beside metrics.jsonl (Weights & Biases), or
    the latest of its name (trackio, which knows no other way).

    Raises:
        RecipeError: a sink that the recipe names is not installed.
    """

    def __init__(self, recipe: Recipe, stage: str, folder: Path, tensorboard: Path, first: int = 0) -> None:
        require_installed(recipe.log)
        self._recipe, self._stage, self._tensorboard, self._first = recipe, stage, tensorboard, first
        self._path = folder / "metrics.jsonl"
        self._closing = ExitStack()
        self._sinks: list[Sink] = []
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        kept = "".join(line for line in _lines(self._path) if json.loads(line)["step"] <= self._first)
        self._file = self._closing.enter_context(self._path.open("w", encoding="utf-8"))
        self._file.write(kept)
        log, named = self._recipe.log, f"{self._recipe.name}/{self._stage}"
        if log.tensorboard:
            self._add_tensorboard()
        if log.wandb is not None:
            run = self._wandb_run(log.wandb, named)
            self._closing.callback(run.finish)
            self._sinks.append(lambda step, values: run.log(dict(values), step=step))
        if log.trackio is not None:
            trackio = import_module("trackio")
            resume = "allow" if self._first else "never"
            trackio.init(project=log.trackio, name=named, config=self._config(), resume=resume)
            self._closing.callback(trackio.finish)
            self._sinks.append(lambda step, values: trackio.log(dict(values), step=step))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def write(self, step: int, values: Mapping[str, float], *, everywhere: bool) -> None:
        """The figures of a step, to metrics.jsonl, and to the other sinks if asked; nothing while it is not open."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        if everywhere:
            for sink in self._sinks:
                sink(step, values)

    def _wandb_run(self, project: str, name: str) -> Any:
        kept = self._path.with_name(WANDB_RUN)
        known = kept.read_text(encoding="utf-8") if kept.exists() else None
        run = import_module("wandb").init(
            project=project,
            name=name,
            config=self._config(),
            dir=str(self._tensorboard.parents[1]),
            id=known,
            resume="allow" if known else None,
        )
        kept.write_text(run.id, encoding="utf-8")
        return run

    def _add_tensorboard(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        writer: Any = SummaryWriter(str(self._tensorboard), purge_step=self._first + 1)
        self._closing.callback(writer.close)

        def write(step: int, values: Mapping[str, float]) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)

        self._sinks.append(write)

    def _config(self) -> dict[str, Any]:
        return self._recipe.model_dump(mode="json")


def _lines(path: Path) -> list[str]:
    """The lines of a log that may not be there, or have been cut off in its last line."""
    if not path.exists():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("}\n")]


def require_installed(log: LogConfig) -> None:
    """Finds out before training whether what the recipe names is there.

    Raises:
        RecipeError: it is not.
    """
    for name, project in (("wandb", log.wandb), ("trackio", log.trackio)):
        if project is None:
            continue
        try:
            import_module(name)
        except ImportError:
            problem = f"expected the package {name} to be installed, found none"
            raise RecipeError(f"log.{name}", problem, f"pip install 'mmbridge[{name}]', or set it to null") from None
