"""The typed schema of one stage of a recipe: what trains, on what, towards which objectives, and for how long."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mmbridge.config import Config
from mmbridge.data.config import DataConfig, SkipConfig
from mmbridge.llm.templates import TemplateName
from mmbridge.objectives.config import ObjectiveConfig

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]
"""A word that can stand in a dotted key and be a folder."""

Metric = Literal[
    "loss",
    "caption.fact_f1", "caption.exact", "caption.cider", "caption.bleu_4", "caption.chair_i", "caption.chair_s",
    "vqa.accuracy", "vqa.exact",
    "pope.f1", "pope.accuracy",
]  # fmt: skip


class GroupConfig(Config):
    """Parameters that train with their own rate; the first group that matches a parameter has it."""

    match: str
    """An fnmatch glob over the bridge's parameter names, e.g. ``connectors.*``."""
    lr: Positive | None = None
    """Peak learning rate of the group; the optimiser's own when left out."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Weight decay of the group; the optimiser's own when left out."""


class OptimConfig(Config):
    """AdamW, or Muon beside it."""

    kind: Literal["adamw", "muon"] = "adamw"
    """With ``muon`` the weights of linear maps have Muon; biases, norms, tables and the output head keep AdamW."""
    lr: Positive
    """Peak learning rate, of both."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """AdamW's."""
    eps: Positive = 1e-8
    """AdamW's."""
    momentum: Beta | None = None
    """Muon's, 0.95 when left out."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Applied to matrices only: biases, norms and single vectors are never decayed."""
    clip: Positive | None = 1.0
    """Largest L2 norm of the whole gradient; null to leave it alone."""
    groups: tuple[GroupConfig, ...] = ()

    @model_validator(mode="after")
    def _read(self) -> "OptimConfig":
        if self.kind == "adamw" and self.momentum is not None:
            raise ValueError("momentum: AdamW has betas; leave it out or set kind to muon")
        return self


class ScheduleConfig(Config):
    """The learning rate over a stage: linear warm-up from 0 to the peak, then ``kind``."""

    kind: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """A fraction of the stage's steps when below 1, else a number of steps."""
    floor: Fraction = 0.0
    """Where cosine and linear end, as a fraction of the peak."""


class ValidationConfig(Config):
    """Measures a stage on held-out samples while it trains."""

    data: DataConfig
    every: Annotated[int, Field(ge=1)]
    """Steps from one validation to the next; the last step is always validated."""
    metric: Metric = "loss"
    """What decides: the objectives' loss, or a task's score on the texts generated for the samples."""
    keep: Literal["best", "last"] = "best"
    """Which weights the stage's bridge gets: those of the best validation, or the last ones."""
    alignment: Annotated[int, Field(ge=1)] | None = None
    """Also measure the implicit alignment of the first so many of its samples, and log it."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after so many validations without improvement; null to train to the end."""

    @model_validator(mode="after")
    def _one_template(self) -> "ValidationConfig":
        if self.metric != "loss" and self.data.templates:
            raise ValueError("data: a task is asked in the stage's template; leave the sources' templates out")
        return self


class CheckpointConfig(Config):
    """What ``--resume`` goes on from when a stage is cut short."""

    every: Annotated[int, Field(ge=1)] | None = 500
    """Steps from one checkpoint to the next; null for none but the one that Ctrl-C, SIGTERM and SIGUSR1 cause."""
    keep: Annotated[int, Field(ge=1)] = 2
    """How many are kept, the newest ones."""
    bridges: Annotated[int, Field(ge=1)] | None = None
    """Steps from one bridge that stays when the stage is finished to the next, in ``stages/NAME/bridges``; null for
    none."""


class StageConfig(Config):
    """One stage. Its script is ``recipes/<script>.py``."""

    name: Name
    script: Literal["align", "instruct"]
    init: str = "previous"
    """Where trainable weights start: ``previous`` (the stage before; the first one as built), ``fresh`` (as built), or
    the path of a bridge."""
    train: Annotated[tuple[str, ...], Field(min_length=1)]
    """fnmatch globs over the bridge's parameter names; everything that no glob matches stays frozen."""
    objectives: Annotated[tuple[ObjectiveConfig, ...], Field(min_length=1)]
    data: DataConfig
    template: TemplateName | None = None
    """The prompt template of this stage, where it is not the LLM section's."""
    optim: OptimConfig
    schedule: ScheduleConfig = ScheduleConfig()
    batch: Annotated[int, Field(ge=1)]
    """Samples of one forward pass on one device."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Forward passes of one step: a step sees batch × accumulate × devices samples."""
    budget: Annotated[int, Field(ge=1)] | None = None
    """Positions of the LLM's input in one forward pass at most. A step still sees batch × accumulate × devices samples;
    they are dealt to devices and to as few forward passes as it takes by their lengths."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimiser steps. Exactly one of steps and epochs is given; an override of the one removes the other."""
    epochs: Positive | None = None
    """Passes over the data mix."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What matrix products are computed in; trainable weights and optimiser state stay float32."""
    packing: bool = True
    """Samples of a batch stand one behind the other in one row where that saves padding, and what they begin with alike
    is computed once: the same losses and gradients in less time."""
    recompute: Literal["auto", "none", "selective"] | Annotated[int, Field(ge=1)] = "auto"
    """What the LLM's blocks compute again in the backward pass rather than keep: nothing (``none``); all but what their
    matrices and attention make (``selective``); so many of them, whole. ``auto`` is the least that memory allows."""
    on_bad_step: Literal["raise"] | SkipConfig = SkipConfig(skip_up_to=0.01)
    """A step whose loss or gradient is not finite is left out, or stops the run."""
    validation: ValidationConfig | None = None
    checkpoint: CheckpointConfig = CheckpointConfig()

    @model_validator(mode="after")
    def _one_length(self) -> "StageConfig":
        if (self.steps is None) == (self.epochs is None):
            found = "neither" if self.steps is None else "both"
            raise ValueError(f"expected exactly one of steps and epochs, found {found}")
        return self
