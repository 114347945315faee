"""Writing the features of all media that a recipe's stages will see, so that training need not encode them again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mmbridge.batches import steps_of
from mmbridge.data.batch import BadSample
from mmbridge.data.config import DataConfig
from mmbridge.data.feature_origin import origin_of
from mmbridge.data.feature_store import FeatureStore, begin, finish, shard_numbers, shard_path
from mmbridge.data.feature_writing import Manner, write_features
from mmbridge.data.media_key import Keys, among
from mmbridge.data.problem import Problem
from mmbridge.data.survey import Reading, Seen, Survey, survey
from mmbridge.feature_gain import Gain, gain
from mmbridge.recipe import Recipe
from mmbridge.sources import resolved
from mmbridge.stage import StageConfig


@dataclass(frozen=True, slots=True)
class Written:
    """What there is of one encoder: the features of so many ``media``, ``new`` of them written now."""

    media: int
    new: int
    shards: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Report:
    """``encoders`` and what was ``seen`` by name (a stage's, or a stage's and ``.validation``); what was left out."""

    encoders: dict[str, Written]
    seen: dict[str, Seen]
    skipped: tuple[Problem, ...]


class Caching:
    """A recipe's data opened, and a folder of features begun, or one that is there gone on with.

    What a stage will see are the draws that training it takes, and an epoch of its validation data.

    Args:
        folder: has a folder for each encoder that a connector reads.
        stages: only these; all when left out.
        processes: as many as will train together, each with a batch of its own.
        manner: how features are written.
        anew: features in the folder that are stale are dropped.

    Raises:
        RecipeError: no such stage, or an encoder cannot be found.
        DataError: the data cannot be read.
        FeatureError: the folder holds something else, or what it holds is stale or damaged.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        stages: Sequence[str] = (),
        *,
        processes: int = 1,
        manner: Manner | None = None,
        anew: bool = False,
    ) -> None:
        recipe.require_stages(stages)
        self._recipe, self._folder, self._manner = resolved(recipe), folder, manner or Manner()
        self._stages = [stage for stage in self._recipe.stages if not stages or stage.name in stages]
        self._readings = dict[str, Reading]()
        for stage in self._stages:
            self._read(stage, processes)
        origins = {name: origin_of(config) for name, config in self._recipe.read_encoders.items()}
        dtype = str(self._manner.dtype).removeprefix("torch.")
        self._known = {name: begin(folder / name, each, dtype, anew=anew) for name, each in origins.items()}

    def gains(self) -> dict[str, Gain]:
        """What each stage would gain, from its first samples; for that its bridge is built."""
        return {stage.name: gain(self._recipe, stage, self._readings[stage.name].mixture) for stage in self._stages}

    def write(self, device: torch.device) -> Report:
        """Writes what is not there yet.

        Raises:
            UserError: a sample cannot be read or decoded, and its data section skips none; or the disk is too small.
        """
        written, seen, bad = dict[str, Written](), dict[str, Seen](), list[BadSample]()
        surveys: dict[str, Survey] = {}
        readings = [*self._readings.values()]
        for name, config in self._recipe.read_encoders.items():
            encoder = config.build().to(device)
            if encoder.medium not in surveys:
                surveys[encoder.medium] = survey(readings, encoder.medium, self._manner.workers)
                bad += surveys[encoder.medium].bad
            media = _without(surveys[encoder.medium], self._known[name])
            folder = self._folder / name
            bad += write_features(name, folder, encoder, readings, media, self._manner)
            finish(folder)
            numbers = shard_numbers(folder)
            there, size = len(FeatureStore(folder)), sum(shard_path(folder, each).stat().st_size for each in numbers)
            written[name] = Written(there, there - len(self._known[name]), len(numbers), size)
        for each in surveys.values():
            seen |= {name: _sum(seen.get(name), own) for name, own in zip(self._readings, each.seen, strict=True)}
        problems = dict.fromkeys(Problem.of(each.error, each.id) for each in bad)  # two encoders meet the same ones
        return Report(written, seen, tuple(problems))

    def _read(self, stage: StageConfig, processes: int) -> None:
        mixture = stage.data.build(self._recipe.seed_of(stage))
        steps = steps_of(stage, len(mixture), processes)
        draws = steps * stage.accumulate * stage.batch * processes
        self._readings[stage.name] = Reading(mixture, draws, _skips(stage.data))
        if stage.validation is not None:
            data = stage.validation.data
            held_out = data.build(self._recipe.seed_of(stage))
            self._readings[f"{stage.name}.validation"] = Reading(held_out, len(held_out), _skips(data))


def _skips(data: DataConfig) -> bool:
    return data.on_bad_sample != "raise"


def _without(media: Survey, known: Keys) -> Survey:
    new = ~among(media.keys, known)
    return replace(media, keys=media.keys[new], places=media.places[new])


def _sum(before: Seen | None, more: Seen) -> Seen:
    return more if before is None else Seen(before.drawn + more.drawn, before.distinct + more.distinct)
