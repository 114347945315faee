"""The objectives there are: the alias ``ObjectiveConfig`` is the list. Nothing here imports torch."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mmbridge.config import Config
from mmbridge.connectors.config import ConnectorConfig, XFormerConfig, qformer_of
from mmbridge.data.sample import MediumKind
from mmbridge.errors import RecipeError
from mmbridge.suggestions import expected_one_of
from mmbridge.transport.config import IpotConfig, PlanConfig

if TYPE_CHECKING:
    from mmbridge.objectives.base import Objective

Connectors = Mapping[str, ConnectorConfig]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Positive
Share = Annotated[float, Field(ge=0, lt=1)]


class NextTokenConfig(Config):
    """Cross-entropy of every supervised token given all before it."""

    kind: Literal["next_token"] = "next_token"
    weight: Weight = 1.0
    """What the loss is multiplied by before the objectives are added up."""

    def build(self, connectors: Connectors, key: str) -> "Objective":
        from mmbridge.objectives.next_token import NextToken

        return NextToken()


class _TextBranchConfig(Config):
    """What reads the text branch of a connector."""

    weight: Weight = 1.0
    """What the loss is multiplied by before the objectives are added up."""
    connector: str | None = None
    """The connector; may be left out where one alone has a text branch."""

    def chosen(self, connectors: Connectors, key: str) -> dict[str, Any]:
        """The connector's name and the medium it reads.

        Raises:
            RecipeError: there is none, or it has no text branch with a shared space.
        """
        able = [name for name, config in connectors.items() if _shares(config)]
        fix = "give its resampler, a qformer, text: {shared: 256}"
        if self.connector is not None and self.connector not in able:
            if self.connector not in connectors:
                raise RecipeError(f"{key}.connector", expected_one_of(connectors, self.connector))
            raise RecipeError(
                f"{key}.connector", f"expected a text branch in connectors.{self.connector}, found none", fix
            )
        if self.connector is None and len(able) != 1:
            raise RecipeError(
                f"{key}.connector",
                f"expected one connector with a text branch, found {len(able)}",
                fix if not able else "name it",
            )
        name = self.connector or able[0]
        medium: MediumKind = connectors[name].medium
        return {"connector": name, "medium": medium}


class ImageTextContrastConfig(_TextBranchConfig):
    """Each medium finds its text among those of the batch, and each text its medium."""

    kind: Literal["itc"] = "itc"
    smoothing: Share = 0.1
    """Share of the target that is spread over the whole batch."""

    def build(self, connectors: Connectors, key: str) -> "Objective":
        from mmbridge.objectives.itc import ImageTextContrast

        return ImageTextContrast(**self.chosen(connectors, key), smoothing=self.smoothing)


class ImageTextMatchingConfig(_TextBranchConfig):
    """Whether a text is about a medium, beside the hardest that are not."""

    kind: Literal["itm"] = "itm"

    def build(self, connectors: Connectors, key: str) -> "Objective":
        from mmbridge.objectives.itm import ImageTextMatching

        return ImageTextMatching(**self.chosen(connectors, key))


class ImageGroundedGenerationConfig(_TextBranchConfig):
    """Each token of a text from what the queries have found and the tokens before it."""

    kind: Literal["itg"] = "itg"
    smoothing: Share = 0.1
    """Share of the target that is spread over all words."""

    def build(self, connectors: Connectors, key: str) -> "Objective":
        from mmbridge.objectives.itg import ImageGroundedGeneration

        return ImageGroundedGeneration(**self.chosen(connectors, key), smoothing=self.smoothing)


class ReconstructionConfig(Config):
    """Pixels of hidden patches from what an X-Former makes of those that a masked autoencoder sees."""

    kind: Literal["reconstruction"] = "reconstruction"
    weight: Weight = 1.0
    """What the loss is multiplied by before the objectives are added up."""
    connector: str | None = None
    """The connector; may be left out where one alone has an xformer."""
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.75
    """Share of the patches that are hidden."""

    def build(self, connectors: Connectors, key: str) -> "Objective":
        """Raises:
        RecipeError: there is no such connector, or it has no xformer.
        """
        from mmbridge.objectives.reconstruction import Reconstruction

        able = [name for name, config in connectors.items() if isinstance(config.resampler, XFormerConfig)]
        if self.connector is not None and self.connector not in connectors:
            raise RecipeError(f"{key}.connector", expected_one_of(connectors, self.connector))
        if self.connector is None and len(able) != 1:
            problem = f"expected one connector with an xformer, found {len(able)}"
            raise RecipeError(f"{key}.connector", problem, "name it" if able else "give its resampler kind xformer")
        name = self.connector or able[0]
        if name not in able:
            problem = f"expected an xformer in connectors.{name}, found {connectors[name].resampler.kind}"
            raise RecipeError(f"{key}.connector", problem)
        encoder = connectors[name].encoders[1]
        return Reconstruction(name, connectors[name].medium, encoder, self.mask_ratio, key)


class ItemContrastConfig(_TextBranchConfig):
    """Each of two items that were consumed together finds the other among those of the batch."""

    kind: Literal["item_contrast"] = "item_contrast"

    def build(self, connectors: Connectors, key: str) -> "Objective":
        from mmbridge.objectives.item_contrast import ItemContrast

        return ItemContrast(**self.chosen(connectors, key))


class AssignmentConfig(Config):
    """A medium and its text, each told in words of the LLM, predict the other's (VLAP)."""

    kind: Literal["assignment"] = "assignment"
    weight: Weight = 1.0
    """What the loss is multiplied by before the objectives are added up."""
    marginal: Literal["frequencies", "softened", "uniform"] = "frequencies"
    """How much is assigned to each word: as often as it is said in the stage's texts, softmax(that / 0.25) as in VLAP's
    released code, or to all alike as in SwAV."""
    draws: Annotated[int, Field(ge=1)] = 10_000
    """Of the stage's data, at most, in whose texts words are counted."""
    epsilon: Positive = 0.01
    """The entropy's weight in the transport, whose costs are cosines."""
    temperature: Positive = 0.01
    """What cosines are divided by in the predictions."""
    iterations: Annotated[int, Field(ge=1)] | None = 3
    """Of the transport; null to run to the tolerance."""
    tolerance: Positive = 1e-4
    """Of the transport's marginals, where there is no number of iterations."""
    plan: Literal["transport", "released"] = "transport"
    """``released``: what the loop of VLAP's released code comes to, each sample for itself."""

    def build(self, connectors: Connectors, key: str) -> "Objective":
        from functools import partial

        from mmbridge.objectives.assignment import WordAssignment
        from mmbridge.transport.assignment import AssignmentPrediction

        prediction = partial(
            AssignmentPrediction,
            epsilon=self.epsilon,
            temperature=self.temperature,
            iterations=self.iterations,
            tolerance=self.tolerance,
            as_released=self.plan == "released",
        )
        counted = self.marginal != "uniform"
        softened, shared = self.marginal == "softened", self.plan == "transport"
        return WordAssignment(prediction, self.draws if counted else 0, softened=softened, shared=shared)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.plan == "released" and self.iterations is None:
            raise ValueError("iterations: plan released runs a number of them; give it, or set plan to transport")
        return self


class TokenTransportConfig(Config):
    """Perceptual tokens carried to the words said of them at the least cost (UNITER's word-region alignment)."""

    kind: Literal["token_transport"] = "token_transport"
    weight: Weight = 1.0
    """What the loss is multiplied by before the objectives are added up."""
    plan: PlanConfig = IpotConfig()
    """What tokens go where; it has no gradient."""
    contrast: bool = False
    """Whether the distance from words said of another medium is taken off, as in UNITER's loss."""

    def build(self, connectors: Connectors, key: str) -> "Objective":
        from mmbridge.objectives.token_transport import TokensToWords

        return TokensToWords(self.plan.build(), contrast=self.contrast)


class DivergenceConfig(Config):
    """Perceptual tokens and the words said of them, as sets, told apart by Sinkhorn's divergence."""

    kind: Literal["divergence"] = "divergence"
    weight: Weight = 1.0
    """What the loss is multiplied by before the objectives are added up."""
    of: Literal["batch", "pair"] = "batch"
    """Between all tokens and all words of a batch, so that words as such are what tokens are like; or between those of
    each medium, so that they are like the words said of it."""
    epsilon: Positive = 0.05
    """The entropy's weight in the transport, whose costs are 1 − cos."""
    tolerance: Positive = 1e-3
    """Of the transport's marginals."""

    def build(self, connectors: Connectors, key: str) -> "Objective":
        from mmbridge.objectives.divergence import BatchDivergence, PairDivergence

        return (BatchDivergence if self.of == "batch" else PairDivergence)(self.epsilon, self.tolerance)


def _shares(config: ConnectorConfig) -> bool:
    qformer = qformer_of(config.resampler)
    return qformer is not None and qformer.text is not None and qformer.text.shared is not None


ObjectiveConfig = Annotated[
    NextTokenConfig
    | ImageTextContrastConfig
    | ImageTextMatchingConfig
    | ImageGroundedGenerationConfig
    | ReconstructionConfig
    | ItemContrastConfig
    | AssignmentConfig
    | TokenTransportConfig
    | DivergenceConfig,
    Field(discriminator="kind"),
]
