"""The typed schema of a recipe: encoders, connectors, an LLM and the stages that train them into a bridge.

The unions of config classes named here are the list of what exists. Nothing here imports torch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from mmbridge.config import Config
from mmbridge.connectors.config import ConnectorConfig
from mmbridge.data.config import FeaturesConfig
from mmbridge.encoders.config import EncoderConfig
from mmbridge.engine_config import EngineConfig, TorchEngineConfig
from mmbridge.errors import RecipeError
from mmbridge.llm.config import LLMConfig
from mmbridge.stage import Name, StageConfig
from mmbridge.suggestions import expected_one_of

if TYPE_CHECKING:
    from mmbridge.bridge import Bridge


class LogConfig(Config):
    """Where a run's curves go besides its own metrics.jsonl."""

    every: Annotated[int, Field(ge=1)] = 10
    """Steps from one logged line to the next."""
    tensorboard: bool = True
    wandb: str | None = None
    """A Weights & Biases project; needs the extra ``wandb``."""
    trackio: str | None = None
    """A trackio project; needs the extra ``trackio``."""


class Recipe(Config):
    """Everything that makes a bridge.

    ``variants`` are named sets of dotted overrides: ``variant=world`` applies one, ``variant=a,b`` two in that order.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    about: str
    paper: str | None = None
    encoders: Annotated[dict[Name, EncoderConfig], Field(min_length=1)]
    connectors: Annotated[dict[Name, ConnectorConfig], Field(min_length=1)]
    llm: LLMConfig
    stages: tuple[StageConfig, ...]
    """None where a bridge was read from a LLaVA folder: it comes trained."""
    features: FeaturesConfig | None = None
    """Where training finds features of media encoded before; no part of the bridge that comes of it."""
    engine: EngineConfig = TorchEngineConfig()
    log: LogConfig = LogConfig()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _parts_fit(self) -> "Recipe":
        """Names that one section takes from another; errors carry their own key, as pydantic gives none here."""
        for name, connector in self.connectors.items():
            for index, encoder in enumerate(connector.encoders):
                if encoder not in self.encoders:
                    key = f"connectors.{name}.encoders.{index}"
                    raise ValueError(f"{key}: {expected_one_of(self.encoders, encoder)}")
        names = [stage.name for stage in self.stages]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise ValueError(f"stages.{index}.name: expected a name of its own, found {name!r} twice")
        return self

    @classmethod
    def load(cls, name_or_path: str | Path, *overrides: str) -> "Recipe":
        """A shipped recipe by name, or a YAML file, with ``key=value`` overrides applied.

        Raises:
            RecipeError: no such recipe, or one line about the first thing wrong in it.
        """
        from mmbridge.recipe_file import load

        return load(name_or_path, overrides)

    def dump(self) -> str:
        """YAML with every default written out; loading it again gives an equal recipe."""
        from mmbridge.recipe_file import dump

        return dump(self)

    @property
    def read_encoders(self) -> dict[str, EncoderConfig]:
        """Those that a connector reads."""
        read = {encoder for connector in self.connectors.values() for encoder in connector.encoders}
        return {name: config for name, config in self.encoders.items() if name in read}

    def without_features(self) -> "Recipe":
        """The same, encoding whatever it meets."""
        return self.model_copy(update={"features": None})

    def seed_of(self, stage: StageConfig) -> int:
        """Of a stage's data and dropout: stages differ, whatever else is trained in the same run."""
        return (self.seed + self.stages.index(stage)) % 2**32

    def require_stages(self, names: Sequence[str]) -> None:
        """Checks that there is something to train, and the names of stages given on a command line.

        Raises:
            RecipeError: the recipe has no stages, or none of that name.
        """
        known = [stage.name for stage in self.stages]
        if not known:
            raise RecipeError(f"{self.name}: stages", "expected at least one stage to train, found none")
        for name in names:
            if name not in known:
                raise RecipeError(f"{self.name}: stage", expected_one_of(known, name))

    def train(self, out: str | Path | None = None) -> "Bridge":
        """Trains every stage into the run folder ``out`` (``runs/<name>`` by default); returns the finished bridge."""
        from mmbridge.train import train

        return train(self, Path("runs") / self.name if out is None else out)
