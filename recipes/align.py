"""Alignment pretraining: connectors learn to put what encoders see where the LLM reads it. All else stays frozen.

The first stage of LLaVA (Visual Instruction Tuning, arXiv 2304.08485) and the whole of LiMBeR (Linearly Mapping from
Image to Text Space, arXiv 2209.15162).
"""

import torch

from mmbridge.batches import training_batches
from mmbridge.bridge import Bridge
from mmbridge.loop import fit
from mmbridge.recompute import recompute
from mmbridge.run import Run
from mmbridge.sample_view import with_first_shown
from mmbridge.stage import StageConfig
from mmbridge.table import print_table
from mmbridge.trainable import unfreeze
from mmbridge.validation import Validation
from mmbridge.word_counts import count_words


def train(run: Run, stage: StageConfig) -> Bridge:
    """Trains the stage into its run; returns its bridge."""
    key, seed = f"stages.{stage.name}", run.seed(stage)

    # Parts: encoders and LLM from their frozen sources, connectors from the recipe's seed.
    bridge = Bridge(run.recipe, stage.template)

    # What trains: connectors alone, from where the stage starts.
    unfreeze(bridge, stage, key, parts=["connectors."])
    run.start(bridge, stage)
    step_bridges = run.step_bridges(bridge, stage)
    print_table(bridge, stage.name, run.console)

    # Data.
    batches, steps = training_batches(bridge, stage, seed, run.ranks)

    # Engine. What is random from here on, dropout, follows from the seed as well, and differs between processes.
    torch.manual_seed((seed + run.ranks.rank) % 2**32)
    engine = run.recipe.engine.build(bridge, stage, steps, key, run.ranks)
    bridge.llm.recompute = recompute(engine, stage, batches, key)
    count_words(engine.objectives, batches)
    validation = Validation(engine, stage, steps, seed, key)

    # From the stage's beginning, or from the newest checkpoint of a run that is resumed.
    with (
        run.log(stage, steps) as log,
        run.checkpoints(stage, engine=engine, validation=validation, data=batches, log=log) as checkpoints,
    ):
        shown = with_first_shown(batches.steps(), bridge, run.console)
        for step in fit(engine, shown, steps, checkpoints.first, log.spare):
            log.step(step)
            if validation.due(step.number):
                log.validate(validation, step.number)
                if validation.stalled:
                    break
            step_bridges(step.number, engine)
            checkpoints(step.number)
    skipped = batches.all_skipped()
    metrics = log.summary | validation.finish() | {"skipped": len(skipped), "skipped_samples": skipped}
    engine.close()
    return run.finish(bridge, stage, metrics)
