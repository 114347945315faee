"""The space in which a bridge's media and texts are compared.

BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and Large Language Models
Junnan Li, Dongxu Li, Silvio Savarese, Steven Hoi, arXiv 2301.12597 (``branch``)

Bridging Vision and Language Spaces with Assignment Prediction
Jungin Park, Jiyoung Lee, Kwanghoon Sohn, arXiv 2404.09632 (``llm``)

In every space a medium is M directions of length 1, and a text is one; they are as near as the nearest of the M
(``mmbridge.connectors.text_heads.similarities``). Where M is 1, that is their cosine.

Symbols: B media, T texts, M directions of a medium, D width of the space.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from mmbridge.bridge import Bridge
from mmbridge.connectors.branch_tokens import padded
from mmbridge.connectors.connector import Connector
from mmbridge.connectors.xformer import qformer_in
from mmbridge.data.batch import Batch
from mmbridge.data.record import CAPTION_PROMPTS
from mmbridge.data.sample import Medium, Sample, conversation
from mmbridge.errors import DataError, RecipeError
from mmbridge.llm.text_states import opening, text_states
from mmbridge.objectives.config import ImageTextContrastConfig
from mmbridge.objectives.run import BatchRun, spoken
from mmbridge.recipe import Recipe

SpaceName = Literal["branch", "llm"]
"""``branch`` is the space that a Q-Former's queries share with its text branch; ``llm`` is that of what the LLM reads
and what it makes of texts, which every bridge has."""

_SAID = "A picture."
"""Stands where a sample needs a text and the medium alone is read."""


class Space(Protocol):
    """Media and texts to directions. Nothing has a gradient, and dropout rests.

    ``about`` says in a line what is compared; ``shape`` is (M, D).
    """

    about: str
    shape: tuple[int, int]

    def media(self, batch: Batch) -> Tensor:
        """(B, M, D) in float32, of the first medium of each sample of a batch that the bridge's ``collate`` made.

        Raises:
            DataError: a sample without a medium of the kind that is compared here.
        """
        ...

    def ids(self, text: str, name: str) -> tuple[int, ...]:
        """A text as token ids; ``name`` is what errors call it.

        Raises:
            DataError: it says nothing, or is too long.
        """
        ...

    def texts(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """(T, D) in float32, of T ≥ 1 texts."""
        ...


def shown(name: str, medium: Medium) -> Sample:
    """A sample that shows a medium, for ``Space.media``."""
    return Sample(name, conversation(("user", (medium, CAPTION_PROMPTS[0])), ("assistant", (_SAID,))))


def space_of(bridge: Bridge, name: SpaceName | None = None) -> Space:
    """The space of a name; without one, the text branch's where the bridge was trained by contrast in it (objective
    ``itc``), in its last stage or one that led to it, and else the LLM's.

    Raises:
        RecipeError: there is no text branch with a shared space, or more than one that could be meant.
    """
    trained = _contrasted(bridge.recipe, bridge.stage)
    if name == "llm" or (name is None and not trained):
        return LLMSpace(bridge)
    able = [each for each, connector in bridge.connectors.items() if _heads(connector)]
    meant = [each for each in able if each in trained] or able
    if len(meant) != 1:
        problem = f"expected one connector with a text branch and a shared space, found {len(meant)}"
        raise RecipeError("connectors", problem, "compare in the space llm")
    return BranchSpace(bridge, meant[0], trained.get(meant[0]))


class BranchSpace:
    """What a Q-Former's queries find in a medium and the first token of a text, both projected (BLIP-2's ITC).

    Args:
        connector: whose Q-Former it is.
        stage: that trained it by contrast, if one did.
    """

    def __init__(self, bridge: Bridge, connector: str, stage: str | None) -> None:
        self._bridge, self._name = bridge, connector
        part = bridge.connectors[connector]
        assert isinstance(part, Connector)
        qformer = qformer_in(part.resampler)
        assert qformer is not None
        self._qformer, text = qformer, qformer.config.text
        assert text is not None
        assert text.shared is not None
        self.shape = qformer.config.queries, text.shared
        trained = "not trained by contrast here" if stage is None else f"trained by contrast in stage {stage}"
        self.about = f"the text branch of connectors.{connector}, {trained}: a text beside the query nearest to it"

    def media(self, batch: Batch) -> Tensor:
        with self._bridge.at_rest(), torch.no_grad():
            pairs = BatchRun(self._bridge, batch).pairs(self._name)
            if pairs.queried.count < len(batch):
                kind = self._bridge.recipe.connectors[self._name].medium
                raise DataError(batch.samples[0].id, f"expected one {kind} in each sample, found a sample without")
            return pairs.images.float()

    def ids(self, text: str, name: str) -> tuple[int, ...]:
        if not text.strip():
            raise DataError(f"sample {name}", "expected a text, found none")
        return self._bridge.branches[self._name](text.strip())

    def texts(self, ids: Sequence[Sequence[int]]) -> Tensor:
        with self._bridge.at_rest(), torch.no_grad():
            return self._qformer.told(*padded(ids, self._bridge.device)).float()


class LLMSpace:
    """The mean of a medium's perceptual tokens, and of the states in which the LLM ends when it reads a text alone.

    A text is read as the assistant says it, its end of turn included: what ``assignment`` trains by (VLAP).
    """

    about = "the LLM's: the mean perceptual token beside the mean state in which the LLM ends on a text, by cosine"

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self.shape = 1, bridge.llm.width

    def media(self, batch: Batch) -> Tensor:
        with self._bridge.at_rest(), torch.no_grad():
            run = BatchRun(self._bridge, batch)
            if len(run.seen) < len(batch):
                raise DataError(batch.samples[0].id, "expected a medium in each sample, found a sample without")
            return functional.normalize(run.perceived.means(run.seen), dim=-1)[:, None]

    def ids(self, text: str, name: str) -> tuple[int, ...]:
        if not text.strip():
            raise DataError(f"sample {name}", "expected a text, found none")
        said = conversation(("user", (CAPTION_PROMPTS[0],)), ("assistant", (text,)))
        ids, llm = spoken(self._bridge.prompter.training(Sample(name, said))), self._bridge.llm
        length = len(opening(llm)) + len(ids)
        if length > llm.max_length:
            problem = f"expected a text of at most {llm.max_length} tokens, found {length}"
            raise DataError(f"sample {name}", problem, "shorten it or raise llm.max_length")
        return ids

    def texts(self, ids: Sequence[Sequence[int]]) -> Tensor:
        with self._bridge.at_rest():
            return functional.normalize(text_states(self._bridge.llm, ids).means(), dim=-1)


def _heads(connector: object) -> bool:
    qformer = qformer_in(connector.resampler) if isinstance(connector, Connector) else None
    return qformer is not None and qformer.heads is not None


def _contrasted(recipe: Recipe, stage: str | None) -> dict[str, str]:
    """The connectors that ``itc`` has trained, and the last stage that did: back from a bridge's stage to where its
    weights started."""
    found: dict[str, str] = {}
    names = [each.name for each in recipe.stages]
    done = recipe.stages[: names.index(stage) + 1] if stage in names else ()
    for each in reversed(done):
        for number, objective in enumerate(each.objectives):
            if isinstance(objective, ImageTextContrastConfig):
                chosen = objective.chosen(recipe.connectors, f"stages.{each.name}.objectives.{number}")
                found.setdefault(chosen["connector"], each.name)
        if each.init != "previous":
            break
    return found
