"""Training a recipe: its stages, one after the other, into a run folder."""

from collections.abc import Sequence
from pathlib import Path

from mmbridge.bridge import Bridge
from mmbridge.llm.weight_mask import named_by
from mmbridge.ranks import together
from mmbridge.recipe import Recipe
from mmbridge.recipes import align, instruct
from mmbridge.run import Run
from mmbridge.sources import resolved
from mmbridge.stage import StageConfig


def train(recipe: Recipe, out: str | Path, stages: Sequence[str] | None = None, resume: bool = False) -> Bridge:
    """Trains a recipe's stages into the run folder ``out``; returns the bridge of the last one.

    Interrupted by Ctrl-C, SIGTERM or SIGUSR1, the stage in work is kept as it is after the step under way. Started by
    torchrun or the deepspeed launcher, several processes do this together, on a file system that all of them see.

    Args:
        recipe: what to train.
        out: a new or empty folder, or a run to go on with.
        stages: only these, in the recipe's order, anew where they were finished; all when left out.
        resume: goes on with the first stage that is not finished, from its newest checkpoint.

    Raises:
        RecipeError: the recipe cannot be built, or is not that of the run to resume.
        FeatureError: the features it reads are stale, incomplete or damaged.
        UserError: ``out`` holds something else.
        DataError, MediaError: a sample that cannot be used, unless the stage's data may skip it.
        MMBridgeError: a loss or gradient that is not finite.
    """
    recipe.require_stages(stages or [])
    if recipe.features is not None:
        recipe.features.build(recipe.read_encoders)  # stale ones are refused before anything is written
    named_by(recipe.llm)  # and so are masks of another LLM
    with together(alone=recipe.engine.kind == "deepspeed") as ranks:
        run = Run(resolved(recipe), Path(out), stages, resume, ranks)
        bridge = None
        for stage in run.todo:
            bridge = None  # frees the memory of the one before: each stage builds its own and loads what it starts from
            bridge = train_stage(run, stage)
        if bridge is None:
            done = [stage.name for stage in recipe.stages if run.stage_folder(stage.name).exists()]
            run.console.print(f"nothing left to train in {run.folder}: {', '.join(done)} finished", markup=False)
            run.publish(done[-1])
            bridge = Bridge.from_pretrained(run.folder, device=recipe.engine.device)
        return bridge


def train_stage(run: Run, stage: StageConfig) -> Bridge:
    """One stage, by its script."""
    match stage.script:
        case "align":
            return align.train(run, stage)
        case "instruct":
            return instruct.train(run, stage)
