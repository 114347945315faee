"""Where a stage tells how it goes: what is shown while it trains, and the figures that are kept."""

from typing import Any

from mmbridge.checkpoint import State
from mmbridge.loop import Step
from mmbridge.metrics_log import MetricsLog
from mmbridge.peak import needed_mfu
from mmbridge.progress import TrainingProgress
from mmbridge.stage import StageConfig
from mmbridge.validation import Validation


class StageLog:
    """The progress shown and the figures kept of one stage, with its totals."""

    def __init__(
        self, progress: TrainingProgress, metrics: MetricsLog, stage: StageConfig, every: int, last: int
    ) -> None:
        self._progress, self._metrics, self._every, self._last = progress, metrics, every, last
        self._bad = 0 if stage.on_bad_step == "raise" else int(stage.on_bad_step.skip_up_to * last)
        counted = ("steps", "steps_left_out", "samples", "tokens", "needed_flops", "executed_flops", "seconds")
        self._totals: dict[str, float] = dict.fromkeys(counted, 0)
        self._peak: float | None = 0.0
        self._loss = 0.0

    @property
    def spare(self) -> int:
        """How many more steps may be left out."""
        return self._bad - int(self._totals["steps_left_out"])

    def step(self, step: Step) -> None:
        """Shows and keeps a step."""
        self._totals["steps_left_out" if step.left_out else "steps"] += 1
        self._totals["seconds"] += step.seconds
        self._peak = None if self._peak is None or step.peak_flops is None else self._peak + step.peak_flops
        if step.left_out:
            self._metrics.write(step.number, {"left_out": 1}, everywhere=True)
            self._progress.say(f"step {step.number} left out, {self.spare} more may be: {step.left_out}")
            return
        values = {
            "loss": step.loss,
            "lr": step.lr,
            "grad_norm": step.grad_norm,
            "tokens": step.tokens,
            "perceptual_tokens": step.perceptual,
            "samples": step.samples,
            "samples_per_second": step.samples / step.seconds,
            "needed_flops": step.needed_flops,
            "executed_flops": step.executed_flops,
            "needed_tflops_per_second": step.needed_flops / step.seconds / 1e12,
            **needed_mfu(step.needed_flops, step.peak_flops),
        }
        if len(step.losses) > 1:
            values |= {f"loss/{name}": value for name, value in step.losses.items()}
        values |= step.figures
        self._metrics.write(step.number, values, everywhere=step.number % self._every == 0 or step.number == self._last)
        self._progress.step(step)
        self._loss = step.loss
        self._totals["samples"] += step.samples
        self._totals["tokens"] += step.tokens
        self._totals["needed_flops"] += step.needed_flops
        self._totals["executed_flops"] += step.executed_flops

    def state(self) -> State:
        """The totals so far."""
        return State({}, {"totals": dict(self._totals), "peak_flops": self._peak, "loss": self._loss})

    def load_state(self, state: State) -> None:
        """Goes on from there."""
        self._totals, self._loss = self._totals | state.values["totals"], state.values["loss"]
        self._peak = state.values.get("peak_flops")

    def validate(self, validation: Validation, step: int) -> None:
        """Validates, shows and keeps what came out."""
        values = validation(step)
        self._metrics.write(step, values, everywhere=True)
        self._progress.say("  ".join(f"{name} {value:.4f}" for name, value in values.items()))

    @property
    def summary(self) -> dict[str, Any]:
        """The stage in figures."""
        rate = self._totals["needed_flops"] / max(self._totals["seconds"], 1e-9) / 1e12
        utilised = needed_mfu(self._totals["needed_flops"], self._peak)
        return {"loss": self._loss} | self._totals | {"needed_tflops_per_second": rate} | utilised
