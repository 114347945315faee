"""The ways to a transport plan that recipes name: the alias ``PlanConfig`` is the list. Nothing here imports torch."""

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from mmbridge.config import Config

if TYPE_CHECKING:
    from mmbridge.transport.token_transport import Planner

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class IpotConfig(Config):
    """Proximal steps towards a plan of least cost, as many and as long as UNITER's."""

    kind: Literal["ipot"] = "ipot"
    beta: Positive = 0.5
    """What holds a step near the plan before it, in units of the cost."""
    iterations: Count = 50
    """How many steps."""

    def build(self) -> "Planner":
        from mmbridge.transport.ipot import ipot

        return lambda cost, rows, columns: ipot(cost, self.beta, rows, columns, iterations=self.iterations)


class SinkhornConfig(Config):
    """The entropic plan."""

    kind: Literal["sinkhorn"]
    epsilon: Positive = 0.05
    """The entropy's weight, in units of the cost."""
    iterations: Count | None = None
    """How many; null to run to the tolerance."""
    tolerance: Positive = 1e-4
    """Of the plan's marginals, where there is no number of iterations."""

    def build(self) -> "Planner":
        from mmbridge.transport.sinkhorn import sinkhorn

        return lambda cost, rows, columns: sinkhorn(
            cost, self.epsilon, rows, columns, iterations=self.iterations, tolerance=self.tolerance
        )


class UnbalancedConfig(Config):
    """An entropic plan that may leave behind what has no match."""

    kind: Literal["unbalanced"]
    epsilon: Positive = 0.05
    """The entropy's weight, in units of the cost."""
    tokens: Positive | None = 0.5
    """The cost from which tokens are rather left behind; null to carry them all."""
    words: Positive | None = None
    """The same of words."""
    iterations: Count | None = None
    """How many; null to run to the tolerance."""
    tolerance: Positive = 1e-4
    """Of what a solution fulfils, where there is no number of iterations."""

    def build(self) -> "Planner":
        from mmbridge.transport.unbalanced import unbalanced

        tokens, words = (float("inf") if each is None else each for each in (self.tokens, self.words))
        return lambda cost, rows, columns: unbalanced(
            cost,
            self.epsilon,
            (tokens, words),
            rows,
            columns,
            iterations=self.iterations,
            tolerance=self.tolerance,
        )

    @model_validator(mode="after")
    def _leaves_something(self) -> Self:
        if self.tokens is None and self.words is None:
            raise ValueError("tokens: expected a number where words has none; set kind to sinkhorn to carry all")
        return self


PlanConfig = Annotated[IpotConfig | SinkhornConfig | UnbalancedConfig, Field(discriminator="kind")]
