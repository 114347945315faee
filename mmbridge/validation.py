"""Validation beside training: a loss or a task's score on held-out samples, the best weights kept, an early stop."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import torch
from torch import Tensor

from mmbridge.alignment.measure import measure
from mmbridge.checkpoint import State
from mmbridge.data.loader import Loader
from mmbridge.data.mixture import Mixture
from mmbridge.data.sample import Sample
from mmbridge.engine import Engine
from mmbridge.errors import RecipeError
from mmbridge.evaluation.run import Task, evaluate
from mmbridge.stage import StageConfig

_ALIGNED = ("ima", "ima_matched", "gap")
_LESS_IS_BETTER = ("loss", "caption.chair_i", "caption.chair_s")


class Validation:
    """A stage's validation; never due if the stage has none.

    ``stalled`` says that patience has run out. Training neither notices when it runs nor that it ran: its random
    state and the bridge's mode are put back.

    Args:
        engine: what trains; it also computes the losses here.
        stage: its ``validation``, and its batch size.
        steps: of the whole stage; the last one is always validated.
        seed: of the order of the samples.
        key: where the stage stands in its recipe, for errors.

    Raises:
        DataError: the samples cannot be read.
    """

    def __init__(self, engine: Engine, stage: StageConfig, steps: int, seed: int, key: str) -> None:
        self._engine, self._batch, self._config, self._steps = engine, stage.batch, stage.validation, steps
        self._key = f"{key}.validation.metric"
        self._best: float | None = None
        self._best_step, self._weights, self._waited = 0, dict[str, Tensor](), 0
        if self._config is not None:
            self._mixture = self._config.data.build(seed)
            self._sign = -1.0 if self._config.metric in _LESS_IS_BETTER else 1.0

    @property
    def stalled(self) -> bool:
        patience = self._config.patience if self._config is not None else None
        return patience is not None and self._waited >= patience

    def due(self, step: int) -> bool:
        """Whether to validate after this step."""
        return self._config is not None and (step % self._config.every == 0 or step == self._steps)

    def __call__(self, step: int) -> dict[str, float]:
        """Validates, and keeps the weights if they are the best so far.

        Raises:
            RecipeError: the task has no such metric.
            UserError: a sample that cannot be used.
        """
        assert self._config is not None
        with self._apart():
            value = self._loss() if self._config.metric == "loss" else self._score(self._config.metric)
            aligned = {} if self._config.alignment is None else self._aligned(self._config.alignment)
        if self._best is None or self._sign * value > self._sign * self._best:
            self._best, self._best_step, self._waited = value, step, 0
            if self._config.keep == "best":
                self._weights = self._engine.weights()
        else:
            self._waited += 1
        return {f"validation/{self._config.metric}": value} | aligned

    def finish(self) -> dict[str, float]:
        """Puts the best weights back if they are to be kept; what they scored, and after which step."""
        if self._config is None or self._best is None:
            return {}
        if self._weights:
            self._engine.restore(self._weights)
        return {f"validation/best/{self._config.metric}": self._best, "validation/best/step": self._best_step}

    def state(self) -> State:
        """The best so far."""
        values = {"best": self._best, "step": self._best_step, "waited": self._waited}
        return State(dict(self._weights), values)

    def load_state(self, state: State) -> None:
        """Goes on from there."""
        self._weights = dict(state.tensors)
        self._best, self._best_step = state.values["best"], state.values["step"]
        self._waited = state.values["waited"]

    def _loss(self) -> float:
        """The objectives' weighted mean over all samples."""
        assert self._config is not None
        engine, data = self._engine, self._config.data
        ones, sums, terms = [1] * len(engine.names), [], []
        batches = Loader(
            self._mixture,
            engine.bridge.collate(templates=data.templates),
            batch=self._batch,
            workers=data.workers,
            on_bad_sample=data.on_bad_sample,
            ranks=engine.ranks,
        )
        for batch in batches:
            sums.append(engine.losses(batch, ones))
            terms.append(engine.terms([batch]))
        totals = engine.ranks.total(torch.stack(sums).sum(dim=0, dtype=torch.float64).tolist())
        counts = engine.ranks.total([sum(column) for column in zip(*terms, strict=True)])
        return sum(total / count for total, count in zip(totals, counts, strict=True))

    def _score(self, metric: str) -> float:
        task, _, name = metric.partition(".")
        known: tuple[Task, ...] = get_args(Task)
        assert task in known
        report = evaluate(
            self._engine.bridge,
            _Drawn(self._mixture),
            task,
            batch_size=self._batch,
            count_flops=False,
            ranks=None if self._engine.intertwined else self._engine.ranks,
        )
        if report.failed:
            raise RecipeError(self._key, f"a sample failed: {report.failed[0].error}")
        if name not in report.metrics:
            raise RecipeError(self._key, f"expected one of {', '.join(report.metrics)}, found {name}")
        return report.metrics[name].value

    def _aligned(self, samples: int) -> dict[str, float]:
        """Means over depth of the default scores of perceptual tokens beside text; every process measures them all."""
        drawn = _Drawn(self._mixture)
        report, _ = measure(self._engine.bridge, drawn, drawn.name, limit=samples, batch_size=self._batch)
        curves = [curve for curve in report.curves if len(curve.of) == 2 and curve.score in _ALIGNED]
        return {f"alignment/{curve.score}/{curve.of[0]}": curve.mean.value for curve in curves}

    @contextmanager
    def _apart(self) -> Iterator[None]:
        bridge = self._engine.bridge
        devices = [bridge.device] if bridge.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad(), self._engine.precision():
            bridge.eval()
            try:
                yield
            finally:
                bridge.train()


class _Drawn:
    """An epoch of a mixture as a source."""

    name = "validation"

    def __init__(self, mixture: Mixture) -> None:
        self._mixture = mixture

    def __len__(self) -> int:
        return len(self._mixture)

    def __getitem__(self, index: int, /) -> Sample:
        return self._mixture[index]
