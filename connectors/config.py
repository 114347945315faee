"""The connectors there are: a resampler and a projector of these unions. They are the list."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mmbridge.config import Config
from mmbridge.data.sample import MediumKind

if TYPE_CHECKING:
    from mmbridge.connectors.base import Projector, Resampler, Words
    from mmbridge.connectors.connector import Connector
    from mmbridge.encoders.base import EncoderFacts

Count = Annotated[int, Field(ge=1)]
Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]


class _JoinedConfig(Config):
    """A resampler that reads several encoders joined on the width."""

    apart: ClassVar[bool] = False


class IdentityConfig(_JoinedConfig):
    """Every token of the encoder becomes a perceptual token."""

    kind: Literal["identity"] = "identity"

    def build(self, facts: "EncoderFacts", *, key: str) -> "Resampler":
        from mmbridge.connectors.identity import Identity

        return Identity()


class AveragePoolConfig(_JoinedConfig):
    """Means over squares of the grid."""

    kind: Literal["average_pool"] = "average_pool"
    factor: Count
    """The square's side in tokens: ``factor``² of them become one."""

    def build(self, facts: "EncoderFacts", *, key: str) -> "Resampler":
        from mmbridge.connectors.pool import AveragePool
        from mmbridge.connectors.windows import divided

        return AveragePool(divided(facts, (1, self.factor, self.factor), f"{key}.factor"))


class ConcatConfig(_JoinedConfig):
    """Neighbouring tokens joined on the width, along a grid's rows (along time where the grid has no rows)."""

    kind: Literal["concat"] = "concat"
    count: Count
    """How many become one."""

    def build(self, facts: "EncoderFacts", *, key: str) -> "Resampler":
        from mmbridge.connectors.concat import Concat
        from mmbridge.connectors.windows import divided

        has_rows = facts.grid.height * facts.grid.width > 1
        window = (1, 1, self.count) if has_rows else (self.count, 1, 1)
        return Concat(divided(facts, window, f"{key}.count"))


class PixelShuffleConfig(_JoinedConfig):
    """Squares of the grid joined on the width."""

    kind: Literal["pixel_shuffle"] = "pixel_shuffle"
    factor: Count
    """The square's side in tokens: ``factor``² of them become one."""

    def build(self, facts: "EncoderFacts", *, key: str) -> "Resampler":
        from mmbridge.connectors.concat import PixelShuffle
        from mmbridge.connectors.windows import divided

        return PixelShuffle(divided(facts, (1, self.factor, self.factor), f"{key}.factor"), key)


class TextBranchConfig(Config):
    """Text beside the queries of a Q-Former: words, positions, and a feed-forward of its own in every block."""

    vocabulary: Count = 30523
    """Words: BERT's 30,522, and the ``[DEC]`` that begins what BLIP-2 learns to generate."""
    positions: Count = 512
    """How many places of a text there are embeddings for."""
    tokenizer: str | None = None
    """A folder or hub id of the tokenizer; the LLM's when left out."""
    revision: str | None = None
    """Branch, tag or commit of ``tokenizer`` on the hub."""
    length: Annotated[int, Field(ge=3)] = 32
    """Tokens to which texts are cut, their beginning and end among them."""
    instruction: bool = False
    """Whether the queries read, beside the features, what the user says where the medium stands (InstructBLIP)."""
    shared: Count | None = None
    """Width of the space in which media and texts are compared; with it come the heads of ``itc``, ``itm``, ``itg``."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.length > self.positions:
            raise ValueError(f"length: expected at most {self.positions}, the positions there are, found {self.length}")
        if self.revision is not None and self.tokenizer is None:
            raise ValueError("revision: only tokenizer has one; name it, or leave this out")
        return self


class QFormerConfig(_JoinedConfig):
    """Learned queries in a BERT read features in every second block (BLIP-2's Q-Former)."""

    kind: Literal["qformer"] = "qformer"
    queries: Count = 32
    """How many perceptual tokens a view becomes."""
    width: Count = 768
    layers: Count = 12
    heads: Count = 12
    feed_forward: Count = 3072
    """Width inside the feed-forwards."""
    cross_every: Count = 2
    """Queries attend to the features in the first block and in every so-manyth after it."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """On embeddings, attention weights and every residual branch, while it trains."""
    normalise_features: bool = True
    """Whether features pass a LayerNorm of the connector's own, in place of the encoder's final norm."""
    text: TextBranchConfig | None = None
    """Needed where text is read beside the queries; without it there are none of its weights."""
    init: str | None = None
    """A folder or hub id of transformers' BLIP-2, InstructBLIP or BERT, whose weights training starts from."""
    revision: str | None = None
    """Branch, tag or commit of ``init`` on the hub."""

    def build(self, facts: "EncoderFacts", *, key: str) -> "Resampler":
        from mmbridge.connectors.qformer import QFormer

        return QFormer(self, facts, key)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads: expected a divisor of width {self.width}, found {self.heads}")
        if self.revision is not None and self.init is None:
            raise ValueError("revision: only init has one; name what to start from, or leave it out")
        return self


class XFormerConfig(Config):
    """A Q-Former on the first encoder's features, whose queries and a masked autoencoder's features, the second's, read
    each other (X-Former)."""

    kind: Literal["xformer"] = "xformer"
    apart: ClassVar[bool] = True
    qformer: QFormerConfig = QFormerConfig()
    """What reads the first encoder, with or without a text branch."""
    heads: Count = 16
    """Of the two cross-attentions between queries and the second encoder's features, whose widths they divide."""

    def build(self, first: "EncoderFacts", second: "EncoderFacts", *, key: str) -> "Resampler":
        from mmbridge.connectors.xformer import XFormer

        return XFormer(self, first, second, key)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.qformer.text is not None and self.qformer.text.instruction:
            raise ValueError("qformer.text.instruction: only the queries of a qformer alone read it; leave it out")
        if self.qformer.width % self.heads:
            raise ValueError(f"heads: expected a divisor of qformer.width {self.qformer.width}, found {self.heads}")
        return self


class LinearConfig(Config):
    """One linear map."""

    kind: Literal["linear"] = "linear"
    bias: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """On the map's output, while it trains."""

    def build(self, width_in: int, words: "Words") -> "Projector":
        from mmbridge.connectors.linear import Linear

        return Linear(width_in, words.width, bias=self.bias, dropout=self.dropout)


class MLPConfig(Config):
    """Linear maps with an activation between each and the next."""

    kind: Literal["mlp"] = "mlp"
    depth: Count = 2
    """How many linear maps."""
    hidden: Count | None = None
    """Width between the maps; the LLM's own when left out."""
    activation: Activation = "gelu"
    bias: bool = True

    def build(self, width_in: int, words: "Words") -> "Projector":
        from mmbridge.connectors.mlp import MLP

        widths = (width_in, *[self.hidden or words.width] * (self.depth - 1), words.width)
        return MLP(widths, activation=self.activation, bias=self.bias)

    @model_validator(mode="after")
    def _hidden_is_used(self) -> Self:
        if self.depth == 1 and self.hidden is not None:
            raise ValueError("hidden: one linear map has no hidden width; leave it out or raise depth")
        return self


ResamplerConfig = Annotated[
    IdentityConfig | AveragePoolConfig | ConcatConfig | PixelShuffleConfig | QFormerConfig | XFormerConfig,
    Field(discriminator="kind"),
]


def qformer_of(config: ResamplerConfig) -> QFormerConfig | None:
    """The Q-Former that a resampler is or has inside."""
    return (
        config.qformer if isinstance(config, XFormerConfig) else config if isinstance(config, QFormerConfig) else None
    )


class VocabularyConfig(Config):
    """Every token a mixture of the LLM's own words (AlignVLM)."""

    kind: Literal["vocabulary"] = "vocabulary"

    def build(self, width_in: int, words: "Words") -> "Projector":
        from mmbridge.connectors.vocabulary import Vocabulary

        assert words.table is not None
        return Vocabulary(width_in, words.table, head=words.head, scale=words.scale)


ProjectorConfig = Annotated[LinearConfig | MLPConfig | VocabularyConfig, Field(discriminator="kind")]


class ConnectorConfig(Config):
    """A resampler, then a projector, then what is put around the tokens of each medium."""

    medium: MediumKind = "image"
    """The medium whose placeholders this connector fills."""
    encoders: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of encoders; the features of several, whose grids must agree, are joined on the width in this order, but
    for resamplers that read them apart."""
    resampler: ResamplerConfig = IdentityConfig()
    projector: ProjectorConfig
    position: Literal["none", "learned"] = "none"
    """Whether a learned vector for its place in the view is added to every perceptual token."""
    newline: bool = False
    """Whether a learned token ends each row of a tiled image, and an untiled image once, as in LLaVA-NeXT."""
    end_token: bool = False
    """Whether a learned token ends each medium."""

    @property
    def instructed(self) -> bool:
        """Whether an instruction is read beside the features."""
        text = self.resampler.text if isinstance(self.resampler, QFormerConfig) else None
        return text is not None and text.instruction

    def build(self, facts: "Sequence[EncoderFacts]", words: "Words", key: str = "connector") -> "Connector":
        """The connector for encoders of these facts and an LLM of these words.

        Args:
            facts: one per name in ``encoders``, in that order.
            words: their width, and themselves where the projector mixes them.
            key: where this section stands in its recipe, for errors.

        Raises:
            RecipeError: the encoders' grids differ, or the resampler cannot divide them.
        """
        from mmbridge.connectors.connector import Connector

        return Connector(self, facts, words, key)

    @model_validator(mode="after")
    def _has_its_encoders(self) -> Self:
        if isinstance(self.resampler, XFormerConfig) and len(self.encoders) != 2:
            raise ValueError(f"encoders: expected two for resampler xformer, found {len(self.encoders)}")
        return self
