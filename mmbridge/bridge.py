"""The bridge: frozen encoders → connectors → a frozen LLM, in memory.

Symbols: M_i perceptual tokens of medium i, D_llm the width of the LLM's input embeddings, S supervised tokens of a
batch, V vocabulary.

Number formats change at two places only: a connector takes features into its own float32, and splicing takes
perceptual tokens into the LLM's. On disk a bridge is a folder: ``mmbridge.bridge_folder``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import ModelHubMixin
from torch import Tensor, nn

from mmbridge.branch_text import Instruction, SaidText, branch_tokenizer
from mmbridge.connectors.base import Instructions, Pretrained, Words
from mmbridge.connectors.branch_tokens import NOTHING, padded
from mmbridge.connectors.connector import Connector
from mmbridge.context import ForwardContext
from mmbridge.conversing import Conversing
from mmbridge.data.batch import Batch
from mmbridge.data.collate import Collate
from mmbridge.data.looks import Looks
from mmbridge.data.sample import MediumKind
from mmbridge.encoders.base import Encoder, Features, Tiling, blank
from mmbridge.llm.prompt import Prompt, Prompter
from mmbridge.llm.sample_prompt import AskedPrompt, LearntPrompt
from mmbridge.llm.splice import splice
from mmbridge.llm.templates import TemplateName
from mmbridge.perceived import Perceived, joined, placed, unpadded
from mmbridge.recipe import Recipe
from mmbridge.sources import Sources, resolved, sources


@dataclass(frozen=True, slots=True)
class BridgeOutput:
    """``logits`` (S, V) for the supervised tokens ``targets`` (S,); ``context`` says where everything stood."""

    logits: Tensor
    targets: Tensor
    context: ForwardContext


@dataclass(frozen=True, slots=True)
class Lengths:
    """How many perceptual tokens media of a kind become, before anything runs. Goes to loader workers."""

    connectors: tuple[tuple[MediumKind, Connector], ...]

    def __call__(self, medium: MediumKind, tilings: Sequence[Tiling | None]) -> int:
        mine = [connector for kind, connector in self.connectors if kind == medium]
        return sum(connector.length(tiling) for connector in mine for tiling in tilings)


class Bridge(Conversing, ModelHubMixin):
    """The parts of a recipe, put together.

    ``encoders`` and ``connectors`` by their names in the recipe, ``llm``; ``unfrozen`` names the parameters of frozen
    parts that need not be as their sources have them (LoRA's, and those a stage trained); ``stage`` is the last stage
    that trained it and ``metrics`` what was measured then; ``features`` are those encoded before, while it trains.
    ``branches`` are the tokenizers of connectors with a text branch.
    Connectors start the same for the same recipe; ``initialise`` gives them weights trained elsewhere.

    Args:
        recipe: what to build; ``self.recipe`` is the same with its frozen parts pinned and without ``features``, which
            only say how batches are made.
        template: the prompt template, where it is not the LLM section's.

    Raises:
        RecipeError: a part cannot be found or built.
        FeatureError: the recipe's features are stale, incomplete or damaged.
    """

    def __init__(self, recipe: Recipe, template: TemplateName | None = None) -> None:
        super().__init__()
        self.recipe, self.template = resolved(recipe).without_features(), template
        self.features = None if recipe.features is None else recipe.features.build(recipe.read_encoders)
        self.stage: str | None = None
        self.metrics: dict[str, Any] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            encoders = {name: config.build() for name, config in recipe.encoders.items()}
            llm = recipe.llm if template is None else recipe.llm.model_copy(update={"template": template})
            self.llm = llm.build()
            connectors = {}
            for name, config in recipe.connectors.items():
                facts = [encoders[encoder].facts for encoder in config.encoders]
                connectors[name] = config.build(facts, self.words, f"connectors.{name}")
        self.encoders, self.connectors = nn.ModuleDict(encoders), nn.ModuleDict(connectors)
        self.unfrozen = {f"llm.{name}" for name, each in self.llm.named_parameters() if each.requires_grad}
        found = {
            name: branch_tokenizer(config.resampler, self.llm.tokenizer, f"connectors.{name}.resampler")
            for name, config in recipe.connectors.items()
        }
        self.branches = {name: branch for name, branch in found.items() if branch is not None}
        read: dict[str, Encoder] = {name: encoders[name] for name in recipe.read_encoders}
        self.prepare = {name: (each.medium, each.prepare) for name, each in read.items()}
        self.eval()

    def initialise(self) -> None:
        """Gives connectors the weights that their configs name to start from, which a bridge loaded does not need.

        Raises:
            RecipeError: they cannot be found or read, or are of another shape.
        """
        for part in self.connectors.modules():
            if isinstance(part, Pretrained):
                part.initialise()

    @property
    def prompter(self) -> Prompter:
        return self.llm.prompter

    @property
    def words(self) -> Words:
        """The LLM's words, for projectors."""
        table, head = self.llm.table, getattr(self.llm.head, "weight", None)
        own = isinstance(head, Tensor) and head is not table and head.shape == table.shape
        return Words(self.llm.width, table, head if own else None, self.llm.scale)

    @property
    def device(self) -> torch.device:
        return next(self.connectors.parameters()).device

    @property
    def lengths(self) -> Lengths:
        pairs = [(config.medium, self._connector(name)) for name, config in self.recipe.connectors.items()]
        return Lengths(tuple(pairs))

    @cached_property
    def sources(self) -> Sources:
        """Where the frozen parts come from, with the hashes of their contents."""
        return sources(self.recipe)

    def own_tensors(self) -> dict[str, Tensor]:
        """Everything that cannot be rebuilt from the frozen sources, by name: connectors and ``unfrozen``."""
        connectors = {f"connectors.{name}": each for name, each in self.connectors.state_dict().items()}
        parameters = self.named_parameters()
        return connectors | {name: each.detach() for name, each in parameters if name in self.unfrozen}

    def collate(self, *, training: bool = True, templates: Iterable[TemplateName] = ()) -> Collate:
        """What makes a batch of samples: prompts with labels, or up to where the assistant speaks next.

        Args:
            templates: those that samples have of their own, for training.
        """
        prompters = {None: self.prompter} | {name: self.llm.prompter_of(name) for name in templates}
        prompt = LearntPrompt(prompters) if training else AskedPrompt(self.prompter)
        texts = {name: SaidText(branch) for name, branch in self.branches.items()} if training else {}
        told = {
            name: (config.medium, Instruction(self.branches[name]))
            for name, config in self.recipe.connectors.items()
            if config.instructed
        }
        tiled = next((prepare.tiling for _, prepare in self.prepare.values() if prepare.most_views > 1), None)
        limit, features = self.llm.max_length, self.features
        return Collate(
            prompt, self.prepare, self.lengths, limit, tiled, features=features, texts=texts, instructions=told
        )

    def nothing(self) -> Batch:
        """Two tokens, for a process that has no samples while the others have: modules must run in all of them."""
        pad = self.llm.pad_id
        return Batch((Prompt("", (pad, pad), (False, True), (), ""),), {name: [] for name in self.prepare}, ())

    def perceptual_tokens(self, batch: Batch) -> list[list[int]]:
        """How many perceptual tokens each placeholder of each sample becomes; nothing runs."""
        counts: dict[MediumKind, list[int]] = {}
        for name, config in self.recipe.connectors.items():
            connector, views = self._connector(name), batch.views[config.encoders[0]]
            mine = [connector.length(view.tiling) for view in views]
            others = counts.get(config.medium, [0] * len(mine))
            counts[config.medium] = [own + other for own, other in zip(mine, others, strict=True)]
        return placed(batch.prompts, batch.media, counts)

    def encode(self, batch: Batch) -> dict[str, Features]:
        """What encoders see in the media of a batch; those that have nothing to see are left out.

        An encoder runs once over all its media of the batch, however many connectors read it.
        """
        return {name: self.encoder(name).encode(batch.views[name]) for name in self.prepare if batch.views[name]}

    def blanks(self, connector: str) -> list[Features]:
        """What a connector reads where there is nothing: one medium by each of its encoders."""
        encoders = map(self.encoder, self.recipe.connectors[connector].encoders)
        return [blank(encoder.facts, self.device) for encoder in encoders]

    def instructions(self, connector: str, looks: Looks | None = None) -> Instructions | None:
        """What a connector reads beside features, if it does; without looks, beside ``blanks``."""
        if not self.recipe.connectors[connector].instructed:
            return None
        media, texts = ((0,), [NOTHING]) if looks is None else (looks.media, looks.instructions[connector])
        return Instructions(media, *padded(texts, self.device))

    def perceive(self, batch: Batch, features: Mapping[str, Features] | None = None) -> Perceived:
        """What the LLM reads in place of the media of a batch.

        Where several connectors read a medium, their tokens follow each other in the recipe's order.

        Every connector runs in every batch, on nothing where its medium is missing: processes that train together
        must run the same modules (ZeRO gathers their weights and sums their gradients as they run).

        Args:
            features: what ``encode`` makes of it, where that is at hand.
        """
        features = self.encode(batch) if features is None else features
        found: dict[MediumKind, list[list[Tensor]]] = {}
        resting = []
        for name, config in self.recipe.connectors.items():
            connector, looks = self._connector(name), batch.looks.get(config.medium)
            if all(encoder in features for encoder in config.encoders):
                seen = [features[encoder] for encoder in config.encoders]
                perceptual = connector(*seen, instructions=self.instructions(name, looks))
                tokens = unpadded(perceptual.values, perceptual.mask)
                if looks is not None and not config.instructed:
                    tokens = [tokens[medium] for medium in looks.media]
                found.setdefault(config.medium, []).append(tokens)
            else:
                resting.append(connector(*self.blanks(name), instructions=self.instructions(name)).values[0, :0])
        media = {kind: [joined([*parts]) for parts in zip(*lists, strict=True)] for kind, lists in found.items()}
        return Perceived(placed(batch.prompts, batch.looked, media), resting)

    def spliced(self, batch: Batch, side: Literal["left", "right"]) -> ForwardContext:
        """A batch as the LLM reads it, padded on ``side``: right for training, left for generation."""
        llm, found = self.llm, self.perceive(batch)
        return splice(
            llm.embed,
            batch.prompts,
            found.tokens,
            side=side,
            pad_id=llm.pad_id,
            max_length=llm.max_length,
            resting=found.resting,
        )

    def forward(self, batch: Batch, perceived: Perceived | None = None) -> BridgeOutput:
        """Logits at the supervised positions of a training batch.

        Args:
            perceived: what ``perceive`` makes of it, where that is at hand.
        """
        found = self.perceive(batch) if perceived is None else perceived
        context = self.llm.read(batch.prompts, found.tokens, batch.looked, found.resting)
        output = self.llm(context)
        return BridgeOutput(output.logits, output.targets, context)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ) -> "Bridge":
        """A bridge folder, a run folder (its last finished stage), a hub id, or a transformers LLaVA folder.

        Args:
            pretrained_model_name_or_path: which one.
            revision: branch, tag or commit on the hub.
            device: ``cpu``, ``cuda`` …; an accelerator, where there is one, when left out.
            dtype: number format of the frozen parts; the recipe's when left out.

        Raises:
            BridgeError: the folder is incomplete, or its frozen parts are not the ones it was trained with.
            RecipeError: a frozen part cannot be found.
            UserError: no such device.
        """
        from mmbridge.bridge_folder import load

        return load(pretrained_model_name_or_path, revision, device, dtype)

    def save_pretrained(
        self, save_directory: str | Path, *, push_to_hub: bool = False, repo_id: str | None = None, **hub: Any
    ) -> str | None:
        """Writes the bridge folder, whole or not at all.

        Args:
            save_directory: a new or empty folder, or a bridge to be replaced.
            push_to_hub: also ``push_to_hub``, to ``repo_id`` or the folder's name, with ``hub`` as its keywords.

        Raises:
            BridgeError: the folder holds something else.
        """
        from mmbridge.bridge_folder import save

        save(self, Path(save_directory))
        return self.push_to_hub(repo_id or Path(save_directory).name, **hub) if push_to_hub else None

    def encoder(self, name: str) -> Encoder:
        """An encoder, by its name in the recipe."""
        encoder = self.encoders[name]
        assert isinstance(encoder, Encoder)
        return encoder

    def _connector(self, name: str) -> Connector:
        connector = self.connectors[name]
        assert isinstance(connector, Connector)
        return connector
