"""The data section of a stage: what it reads, in which shares, and what happens to samples that cannot be used."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from mmbridge.config import Config
from mmbridge.data.record import CAPTION_PROMPTS, Task
from mmbridge.llm.templates import TemplateName

if TYPE_CHECKING:
    from mmbridge.data.feature_cache import FeatureCache
    from mmbridge.data.mixture import Mixture
    from mmbridge.data.sources import Source
    from mmbridge.encoders.config import EncoderConfig

Format = Literal["webdataset", "folder", "llava", "chat", "datasets", "parquet"]
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Turns = Annotated[int, Field(ge=1)]
Together = Annotated[int, Field(ge=1)]


class FilesConfig(Config):
    """Samples from files: shards, a ``metadata.jsonl`` folder, LLaVA JSON, chat JSON lines, saved Datasets, Parquet."""

    kind: Literal["files"] = "files"
    path: str
    """A file, a folder, or a brace pattern such as ``train-{000..009}.tar`` of shards or Parquet files, local or at an
    http(s) URL; Parquet also as ``hf://datasets/ORG/NAME@REVISION/*.parquet``."""
    format: Format | None = None
    """Told by looking when left out."""
    media_root: str | None = None
    """The folder media paths start from and may not leave; the data file's own when left out, ``/`` for anywhere."""
    task: Task = "all"
    prompts: Annotated[tuple[str, ...], Field(min_length=1)] = CAPTION_PROMPTS
    """What captions are asked for with; each record keeps one of them."""
    turns: Turns = 1
    """How many questions about one medium share a conversation."""
    together: Together = 1
    """How many texts about one medium are drawn at once, as one sample of a batch: so many of its captions, or of its
    conversations. What they begin with is computed once."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Only so many samples, the first ones."""
    template: TemplateName | None = None
    """The prompt template of this source's samples, where it is not the stage's."""
    weight: Weight = 1.0
    """This source's share of the mix, relative to the others'."""

    def build(self, late: bool = False) -> "Source":
        """Opens it; rows that cannot be read are errors now, or ``late``, when they are drawn."""
        from mmbridge.data.formats import open_source

        return open_source(
            self.path,
            self.format,
            self.media_root,
            task=self.task,
            prompts=self.prompts,
            turns=self.turns,
            together=self.together,
            template=self.template,
            limit=self.limit,
            late=late,
        )


class WorldConfig(Config):
    """Scenes of the embedded world, rendered as they are asked for."""

    kind: Literal["world"] = "world"
    split: Literal["train", "validation", "test", "combinations"] = "train"
    count: Annotated[int, Field(ge=1)]
    """How many scenes."""
    seed: Annotated[int, Field(ge=0)] = 0
    task: Literal["caption", "vqa", "pope", "all"] = "all"
    turns: Turns = 1
    """How many questions about one scene share a conversation."""
    together: Together = 1
    """How many texts about one scene are drawn at once, as one sample of a batch."""
    template: TemplateName | None = None
    """The prompt template of this source's samples, where it is not the stage's."""
    weight: Weight = 1.0
    """This source's share of the mix, relative to the others'."""

    def build(self) -> "Source":
        from mmbridge.data.world.source import WorldSource

        return WorldSource(
            self.split,
            self.count,
            self.seed,
            self.task,
            turns=self.turns,
            together=self.together,
            template=self.template,
        )


class DigitsConfig(Config):
    """The UCI handwritten digits, to be read out and asked about; needs the extra ``digits``."""

    kind: Literal["digits"] = "digits"
    split: Literal["train", "test"] = "train"
    task: Literal["caption", "vqa", "all"] = "all"
    turns: Turns = 1
    """How many questions about one digit share a conversation."""
    together: Together = 1
    """How many texts about one digit are drawn at once, as one sample of a batch."""
    template: TemplateName | None = None
    """The prompt template of this source's samples, where it is not the stage's."""
    weight: Weight = 1.0
    """This source's share of the mix, relative to the others'."""

    def build(self) -> "Source":
        from mmbridge.data.digits import digits

        return digits(self.split, self.task, turns=self.turns, together=self.together, template=self.template)


class ItemsConfig(Config):
    """Items of the embedded world: vectors of who consumed them, to be described, asked about and put in pairs."""

    kind: Literal["items"] = "items"
    split: Literal["train", "validation", "test"] = "train"
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the whole catalogue: its users, vectors and splits."""
    task: Literal["caption", "vqa", "pope", "pairs", "all"] = "all"
    """``pairs`` are an item, its text, and another vector that goes together with it; ``all`` has none of them."""
    beside: Literal["item", "user"] = "item"
    """What stands second in a pair: an item consumed by the same users, or a user who consumed it."""
    turns: Turns = 1
    """How many questions about one item share a conversation."""
    together: Together = 1
    """How many texts about one item are drawn at once, as one sample of a batch."""
    template: TemplateName | None = None
    """The prompt template of this source's samples, where it is not the stage's."""
    weight: Weight = 1.0
    """This source's share of the mix, relative to the others'."""

    def build(self) -> "Source":
        from mmbridge.data.world.items import items

        return items(
            self.split,
            self.seed,
            self.task,
            self.beside,
            turns=self.turns,
            together=self.together,
            template=self.template,
        )

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.task != "pairs" and self.beside != "item":
            raise ValueError("beside: only task pairs has a second; leave it out")
        return self


MixConfig = Annotated[FilesConfig | WorldConfig | DigitsConfig | ItemsConfig, Field(discriminator="kind")]


class SkipConfig(Config):
    """Leaves what cannot be used out, counted: samples of a data section, or steps of a stage."""

    skip_up_to: Annotated[float, Field(ge=0, lt=1)]
    """The run stops when more than this fraction of all that a stage will see has been left out."""


class DataConfig(Config):
    """What a stage reads."""

    mix: Annotated[tuple[MixConfig, ...], Field(min_length=1)]
    """Sources and their shares."""
    on_bad_sample: Literal["raise"] | SkipConfig = "raise"
    """A sample that cannot be used (damaged media, too long, nothing to learn from) stops the run, or is left out."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read, decode and tokenise ahead of training; 0 does it in the training process."""

    @property
    def templates(self) -> set[TemplateName]:
        """Those that sources have of their own."""
        return {item.template for item in self.mix if item.template is not None}

    def build(self, seed: int) -> "Mixture":
        """The sources, opened, in an order that depends on ``seed``.

        Raises:
            DataError: a source that cannot be read or holds nothing for its task.
        """
        from mmbridge.data.mixture import Mixture

        late = self.on_bad_sample != "raise"
        sources = [item.build(late) if isinstance(item, FilesConfig) else item.build() for item in self.mix]
        return Mixture(sources, [item.weight for item in self.mix], seed)


class FeaturesConfig(Config):
    """Features that ``mmbridge data cache`` has written, read in place of running the encoders."""

    path: str
    """The folder they were written to."""
    missing: Literal["encode", "raise"] = "encode"
    """A medium whose features are not there is encoded as it comes, beside those that are; or it stops the run."""

    def build(self, encoders: "Mapping[str, EncoderConfig]") -> "FeatureCache":
        """Opens those of these encoders, by their names in the recipe.

        Raises:
            FeatureError: some are missing, stale, not finished or cut off; none of them is used then.
        """
        from mmbridge.data.feature_cache import open_features

        return open_features(Path(self.path), encoders, self.missing)
