"""BLIP-2's Q-Former: learned queries that read features, beside text or without.

BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and Large Language Models
Junnan Li, Dongxu Li, Silvio Savarese, Steven Hoi, arXiv 2301.12597

InstructBLIP: Towards General-purpose Vision-Language Models with Instruction Tuning
Wenliang Dai, Junnan Li, Dongxu Li, Anthony Meng Huat Tiong, Junqi Zhao, Weisheng Wang, Boyang Li, Pascale Fung, Steven
Hoi, arXiv 2305.06500 (the queries also read the instruction)

Symbols: V views, N tokens of a view, D their width; R rows of a pass, M queries, L text tokens, W width of the
Q-Former, C of the space it shares with texts, h heads, d = W / h.

A view's keys and values are projected once (``image``) and serve every pass over it, also in other rows (``of``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn

from mmbridge.connectors.base import Instructions
from mmbridge.connectors.bert_blocks import EPSILON, Block, KeyValue
from mmbridge.connectors.config import QFormerConfig
from mmbridge.connectors.keys_values import KeysValues
from mmbridge.connectors.qformer_init import initialise
from mmbridge.connectors.text_heads import TextHeads
from mmbridge.encoders.base import EncoderFacts, Features, Grid, Tiling
from mmbridge.errors import RecipeError

QFormerReading = Literal["queries", "text", "both", "causal"]
"""What a pass reads, and what sees what.

``queries`` alone, which see each other and the view; ``text`` alone, which sees itself; ``both``, which see each other;
``causal``: queries see queries, text sees the queries and the text up to itself (UniLM). Text never sees the view but
through the queries.
"""

SPREAD = 0.02
"""BERT's standard deviation of what is drawn: every matrix, embeddings and queries."""


@dataclass(frozen=True, slots=True)
class QFormerOutput:
    """``queries`` (R, M, W) and ``text`` (R, L, W), those that were read, and the queries' own keys and values."""

    queries: Tensor | None
    text: Tensor | None
    kept: KeysValues | None


class Embeddings(nn.Module):
    """Queries, and words with their positions, as the first block reads them: normed alike."""

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__()
        width, text = config.width, config.text
        self.queries = nn.Parameter(torch.empty(config.queries, width))
        self.words = None if text is None else nn.Embedding(text.vocabulary, width)
        self.positions = None if text is None else nn.Embedding(text.positions, width)
        self.norm = nn.LayerNorm(width, EPSILON)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, rows: int, ids: Tensor | None, *, queries: bool) -> Tensor:
        """(R, M + L, W), either of which may be left out."""
        parts = [self.queries.expand(rows, -1, -1)] if queries else []
        if ids is not None:
            assert self.words is not None
            assert self.positions is not None
            parts.append(self.words(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device)))
        out: Tensor = self.dropout(self.norm(torch.cat(parts, dim=1)))
        return out


class QFormer(nn.Module):
    """N tokens of a view to M queries, which stand in one row and have no prefix.

    Parameters are named ``feature_norm.*``, ``embeddings.*``, ``blocks.N.*`` and ``heads.*``, those the config asks
    for. They start as BERT's do: matrices, embeddings and queries normal with a deviation of 0.02, biases 0.

    Args:
        config: sizes, and whether there is a text branch.
        facts: of the encoder; D is its width.
        key: where the config stands in its recipe, for errors.
    """

    def __init__(self, config: QFormerConfig, facts: EncoderFacts, key: str) -> None:
        super().__init__()
        self.config, self.key = config, key
        self.feature_norm = nn.LayerNorm(facts.width) if config.normalise_features else None
        self.embeddings = Embeddings(config)
        self.blocks = nn.ModuleList(
            Block(
                config.width,
                None if index % config.cross_every else facts.width,
                config.heads,
                config.feed_forward,
                config.dropout,
                text=config.text is not None,
            )
            for index in range(config.layers)
        )
        text = config.text
        shared = None if text is None else text.shared
        self.heads = None if text is None or shared is None else TextHeads(config.width, shared, text.vocabulary)
        for each in self.parameters():
            if each.ndim == 2:
                nn.init.normal_(each, std=SPREAD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def initialise(self) -> None:
        """Takes the weights that ``config.init`` names to start from, if it does.

        Raises:
            RecipeError: they cannot be found or read, or are of another shape.
        """
        initialise(self.state_dict(), self.config, self.key)

    @property
    def table(self) -> Tensor:
        """(K, W), the embeddings of the words of its text branch."""
        words = self.embeddings.words
        assert words is not None
        return words.weight

    def train(self, mode: bool = True) -> Self:
        """Dropout acts while something in it trains: a frozen one, as MiniGPT-4's, always finds the same."""
        return super().train(mode and any(each.requires_grad for each in self.parameters()))

    def facts(self, facts: EncoderFacts) -> EncoderFacts:
        return EncoderFacts(self.config.width, self.grid(facts.grid))

    def grid(self, grid: Grid) -> Grid:
        return Grid(1, 1, self.config.queries)

    def forward(self, features: Features) -> Features:
        """What the queries find in V views; a view without a real token has none."""
        queries = self.read("queries", self.image(features.values, features.mask)).queries
        return self._found(queries, features.mask, features.grids, features.tilings)

    def instructed(self, features: Features, instructions: Instructions) -> Features:
        """What the queries find in the views of every look, reading its instruction as well."""
        image = self.image(features.values, features.mask)
        views, looks = instructions.rows(features.tilings)
        if views != [*range(image.rows)]:
            image = image.of(torch.tensor(views, device=features.mask.device))
        queries = self.read("both", image, instructions.ids[looks], instructions.mask[looks]).queries
        tilings = tuple(features.tilings[medium] for medium in instructions.media)
        return self._found(queries, features.mask[views], [features.grids[view] for view in views], tilings)

    def image(self, values: Tensor, mask: Tensor) -> KeysValues:
        """The keys and values of V views, for any number of passes.

        Args:
            values: (V, N, D), in any number format; what is not real may be anything.
            mask: (V, N).
        """
        values = values.to(self.embeddings.queries.dtype)
        keep = None
        if not bool(mask.all()):
            values = values.masked_fill(~mask[..., None], 0)
            keep = (mask | ~mask.any(dim=1, keepdim=True))[:, None, None]  # nothing real: attend to zeros, not nowhere
        if self.feature_norm is not None:
            values = self.feature_norm(values)
        crossing = (block.cross for block in self._blocks)
        return KeysValues(tuple(None if each is None else each.key_value(values) for each in crossing), keep)

    def read(
        self,
        reading: QFormerReading,
        image: KeysValues | None = None,
        ids: Tensor | None = None,
        text_mask: Tensor | None = None,
        kept: KeysValues | None = None,
    ) -> QFormerOutput:
        """One pass over R rows.

        Args:
            reading: what is read.
            image: of the view of each row, wherever queries are read.
            ids: (R, L) text, padded behind, wherever text is read.
            text_mask: (R, L), true where it is real; ``None`` where all is.
            kept: for ``causal``, of a pass of ``queries`` over the same rows, which then are not read again.

        Raises:
            RecipeError: there is no text branch, or the text is longer than its positions.
        """
        asked = reading in ("queries", "both") or (reading == "causal" and kept is None)
        source = image if asked else kept
        assert (ids is None) == (reading == "queries"), f"{reading}: a pass over text has ids, one without has none"
        assert (source is None) == (reading == "text"), f"{reading}: expected keys and values, found none"
        if ids is not None:
            self._require_text(ids.shape[1])
        rows = len(ids) if ids is not None else source.rows if source is not None else 0
        states = self.embeddings(rows, ids, queries=asked)
        queries = self.config.queries if asked else 0
        mask = None if ids is None else self._mask(ids, text_mask, reading, queries)
        image_mask, own = None if image is None else image.mask, list[KeyValue]()
        for index, block in enumerate(self.blocks):
            before = None if kept is None else kept.blocks[index]
            features = None if image is None else image.blocks[index]
            states, (key, value) = block(states, queries, mask, before, features, image_mask)
            own.append((key[:, :, :queries], value[:, :, :queries]))
        return QFormerOutput(
            states[:, :queries] if asked else None,
            None if ids is None else states[:, queries:],
            KeysValues(tuple(own)) if asked else None,
        )

    def told(self, ids: Tensor, text_mask: Tensor) -> Tensor:
        """Texts (R, L) as directions (R, C) in the shared space of its text branch; ``text_mask`` as in ``read``."""
        states = self.read("text", ids=ids, text_mask=text_mask).text
        assert states is not None
        assert self.heads is not None
        return self.heads.texts(states[:, 0])

    def _found(
        self, queries: Tensor | None, mask: Tensor, grids: Sequence[Grid], tilings: tuple[Tiling | None, ...]
    ) -> Features:
        assert queries is not None
        real = mask.any(dim=1, keepdim=True).expand(-1, self.config.queries)
        return Features(queries, real, tuple(self.grid(grid) for grid in grids), tilings)

    def _mask(self, ids: Tensor, real: Tensor | None, reading: QFormerReading, queries: int) -> Tensor | None:
        """(R, 1, 1 or S, K), over queries, kept or read, and text; ``None`` where all may attend to all."""
        (rows, length), told = ids.shape, 0 if reading == "text" else self.config.queries
        keys = None
        if real is not None and not bool(real.all()):
            keys = torch.cat([real.new_ones(rows, told), real], dim=1)[:, None, None]
        if reading != "causal":
            return keys
        seen = torch.ones(told + length, told + length, dtype=torch.bool, device=ids.device).tril()
        seen[:, :told] = True
        seen = seen[told - queries :]
        return seen if keys is None else seen & keys

    def _require_text(self, length: int) -> None:
        text = self.config.text
        if text is None:
            raise RecipeError(f"{self.key}.text", "expected a text branch, found none", "set text to {}")
        if length > text.positions:
            problem = f"expected texts of at most {text.positions} tokens, found {length}"
            raise RecipeError(f"{self.key}.text.positions", problem)

    @property
    def _blocks(self) -> Sequence[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]
