"""The folder of a run: everything needed to repeat it, and what came of it.

    recipe.yaml            the recipe, fully resolved
    environment.json       versions, commit, hardware, command, seed
    stages/NAME/           a finished stage: its bridge, metrics.jsonl, environment.json, bridges along it if asked for
    stages/NAME.partial/   the stage in work, with its checkpoints
    bridge/                the bridge of the stage that finished last
    tensorboard/NAME/      curves

A stage's folder appears whole when the stage is finished, so what is there is finished.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from mmbridge.bridge import Bridge
from mmbridge.bridge_folder import files, fill, find, replaced, write
from mmbridge.checkpoint import read, steps
from mmbridge.checkpoints import Checkpoints, Found, Kept, newest
from mmbridge.environment import environment
from mmbridge.errors import RecipeError, UserError
from mmbridge.metrics_log import MetricsLog, require_installed
from mmbridge.progress import TrainingProgress
from mmbridge.ranks import ALONE, Ranks
from mmbridge.recipe import Recipe
from mmbridge.resumable import ENVIRONMENT, RECIPE, require_same_steps
from mmbridge.stage import StageConfig
from mmbridge.stage_log import StageLog
from mmbridge.step_bridges import StepBridges
from mmbridge.trainable import settle


class Run:
    """A run's folder, opened for training.

    Args:
        recipe: resolved.
        folder: new or empty, or a run of the same recipe to go on with.
        stages: only these are trained, anew where they were finished.
        resume: leave finished stages as they are; go on with one in work from its newest whole checkpoint.
        ranks: the processes that train together; all read the folder, the main one writes it.

    Raises:
        UserError: the folder holds something else, or a run that would be overwritten.
        RecipeError: the run to resume was made from another recipe.
    """

    def __init__(
        self, recipe: Recipe, folder: Path, stages: Sequence[str] | None, resume: bool, ranks: Ranks = ALONE
    ) -> None:
        self.recipe, self.folder, self._resume, self.ranks = recipe, folder, resume, ranks
        self.console = plain_or_terminal() if ranks.main else Console(quiet=True)
        self._only = stages
        self._found: Found | None = None
        require_installed(recipe.log)
        self._refuse_foreign()
        if resume:
            require_same_steps(recipe, folder, ranks.count)
        ranks.wait()  # until all have seen the folder as it was
        if ranks.main:
            (folder / "stages").mkdir(parents=True, exist_ok=True)
            (folder / RECIPE).write_text(recipe.dump(), encoding="utf-8")
            told = json.dumps(environment(recipe, ranks), indent=2)
            (folder / ENVIRONMENT).write_text(told + "\n", encoding="utf-8")

    @property
    def todo(self) -> list[StageConfig]:
        """The stages to train, in order."""
        chosen = [stage for stage in self.recipe.stages if self._only is None or stage.name in self._only]
        return [stage for stage in chosen if not (self._resume and self.stage_folder(stage.name).exists())]

    def stage_folder(self, name: str) -> Path:
        """Where a finished stage is."""
        return self.folder / "stages" / name

    def seed(self, stage: StageConfig) -> int:
        """Of a stage's data and dropout."""
        return self.recipe.seed_of(stage)

    def start(self, bridge: Bridge, stage: StageConfig) -> None:
        """Gives a bridge the weights its stage starts from.

        Raises:
            RecipeError: the stage before has not been trained here, or what a connector starts from does not fit.
            BridgeError: the bridge to start from is missing, or does not fit.
        """
        index = self.recipe.stages.index(stage)
        if stage.init == "fresh" or (stage.init == "previous" and index == 0):
            bridge.initialise()
            return
        if stage.init == "previous":
            name = self.recipe.stages[index - 1].name
            source = self.stage_folder(name)
            if not source.exists():
                problem = f"expected the stage before, {name}, in {self.folder}, found it not trained"
                raise RecipeError(
                    f"stages.{stage.name}.init", problem, "train it first, or set init to fresh or a bridge"
                )
        else:
            source = find(stage.init)
        fill(bridge, source)

    @contextmanager
    def log(self, stage: StageConfig, steps: int) -> Iterator[StageLog]:
        """Opens a stage's logs, and closes them however it ends."""
        partial, curves = self._partial(stage), self.folder / "tensorboard" / stage.name
        found = self._found = self._newest(stage)
        every, first = self.recipe.log.every, found.step if found else 0
        with ExitStack() as stack:
            metrics = MetricsLog(self.recipe, stage.name, partial, curves, first)
            if self.ranks.main:
                if found is None:
                    for old in (partial, curves):
                        shutil.rmtree(old, ignore_errors=True)
                    partial.mkdir()
                shutil.copyfile(self.folder / ENVIRONMENT, partial / ENVIRONMENT)
                stack.enter_context(metrics)
            progress = stack.enter_context(TrainingProgress(stage.name, steps, every, self.console, first))
            if found:
                progress.say(f"goes on after step {first}")
            yield StageLog(progress, metrics, stage, every, steps)

    def checkpoints(self, stage: StageConfig, **parts: Kept) -> Checkpoints:
        """What keeps a stage in work. Its parts are put where the checkpoint is that ``log`` goes on from."""
        return Checkpoints(self._checkpoints(stage), stage.checkpoint, parts, self._found, self.ranks)

    def step_bridges(self, bridge: Bridge, stage: StageConfig) -> StepBridges:
        """What keeps bridges along a stage. To be made before the engine is."""
        return StepBridges(bridge, stage, self._partial(stage) / "bridges", self.ranks)

    def _newest(self, stage: StageConfig) -> Found | None:
        """The same in every process: what the main one finds."""
        if not self._resume:
            return None
        found, damaged = newest(self._checkpoints(stage)) if self.ranks.main else (None, [])
        for line in damaged:
            self.console.print(f"{line}; passed over", markup=False, soft_wrap=True)
        step = self.ranks.from_main(found.step if found else 0)
        return Found(step, read(self._checkpoints(stage), step)) if step and not found else found

    def finish(self, bridge: Bridge, stage: StageConfig, metrics: dict[str, Any]) -> Bridge:
        """Saves what a stage has made, as its own folder and as the run's bridge; freezes the bridge again."""
        bridge.stage, bridge.metrics, bridge.features = stage.name, metrics, None
        partial, finished = self._partial(stage), self.stage_folder(stage.name)
        if self.ranks.main:
            shutil.rmtree(self._checkpoints(stage), ignore_errors=True)
            write(bridge, partial)
            shutil.rmtree(finished, ignore_errors=True)
            os.replace(partial, finished)
        self.publish(stage.name)
        settle(bridge)
        return bridge

    def publish(self, stage: str) -> None:
        """Makes a finished stage's bridge the run's. Files are shared with the stage's folder where links can be."""
        if self.ranks.main:
            with replaced(self.folder / "bridge") as folder:
                for file in files(self.stage_folder(stage)):
                    try:
                        os.link(file, folder / file.name)
                    except OSError:  # a file system without hard links
                        shutil.copy2(file, folder / file.name)
        self.ranks.wait()

    def _partial(self, stage: StageConfig) -> Path:
        return self.folder / "stages" / f"{stage.name}.partial"

    def _checkpoints(self, stage: StageConfig) -> Path:
        return self._partial(stage) / "checkpoints"

    def _refuse_foreign(self) -> None:
        if not self.folder.exists() or not any(self.folder.iterdir()):
            return
        if not (self.folder / "stages").is_dir():
            found = min(each.name for each in self.folder.iterdir())
            raise UserError(self.folder, f"expected an empty folder or a run, found {found}", "name another --out")
        done = [stage.name for stage in self.recipe.stages if self.stage_folder(stage.name).exists()]
        begun = [stage.name for stage in self.recipe.stages if steps(self._checkpoints(stage))]
        if (done or begun) and not self._resume and self._only is None:
            what, names = ("finished stages", done) if done else ("checkpoints", begun)
            problem = f"expected an empty folder, found a run with {what} ({', '.join(names)})"
            raise UserError(self.folder, problem, "--resume goes on with it; or name another --out")


def plain_or_terminal() -> Console:
    """Standard output; wide where it is no terminal, so that nothing is cut off in a log."""
    console = Console()
    return console if console.is_terminal else Console(width=200)
