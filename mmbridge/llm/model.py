"""The frozen LLM: any transformers causal LM behind one interface, changed by hooks only.

Symbols: B samples, T positions, D_llm input embedding width, S supervised tokens of the batch, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmbridge.context import ForwardContext
from mmbridge.errors import RecipeError
from mmbridge.llm.attention import KEYWORD, NAME, TreeAttention
from mmbridge.llm.config import LLMConfig
from mmbridge.llm.generating import Generating
from mmbridge.llm.packing import Packing, pack
from mmbridge.llm.prompt import Prompt, Prompter
from mmbridge.llm.reading import read
from mmbridge.llm.recomputing import NOTHING, recomputed
from mmbridge.llm.splice import placed, splice
from mmbridge.llm.templates import TemplateName
from mmbridge.llm.trim import only_at


@dataclass(frozen=True)  # without slots: ZeRO-3 looks for the tensors in what a module returns
class LLMOutput:
    """``logits`` (S, V) for the supervised tokens ``targets`` (S,), in reading order, in the model's dtype.

    A supervised token at the very start of a row has nothing that predicts it and is left out.
    """

    logits: Tensor
    targets: Tensor


class LanguageModel(Generating):
    """A causal LM with its tokenizer and prompter.

    Dropout acts in LoRA's adapters only, and only in training: the model itself always runs in eval mode.
    ``context`` is the batch in work during ``forward``, ``generate`` and ``stream``, for hooks on ``layers`` to read.
    ``packing`` is set by an engine: without it every sample of a batch has its own row. ``recompute`` says what blocks
    do not keep for the backward pass.

    Raises:
        RecipeError: the model's parts are not found where a causal LM has them, or its chat template cannot be used.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: LLMConfig) -> None:
        super().__init__()
        self.model, self.tokenizer, self.config = model, tokenizer, config
        self.prompter = Prompter(tokenizer, config.template, config.separator, config.system)
        self.context: ForwardContext | None = None
        self.packing: Packing | None = None
        self.recompute = NOTHING
        if not isinstance(self.head, nn.Module):
            raise RecipeError(config.path, f"expected an output head, found none in {type(model).__name__}")
        self._layers = _name_of_layers(model, config.path)
        text = model.config.get_text_config(decoder=True)
        self.positions: int | None = getattr(text, "max_position_embeddings", None)
        rows, ends = self._embedding.weight.shape[0], self.ends()
        candidates = (tokenizer.pad_token_id, *ends, 0)
        self.pad_id = next(each for each in candidates if each is not None and each < rows)
        self.eval()

    @property
    def _embedding(self) -> nn.Embedding:
        embedding = self.model.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        return embedding

    @property
    def head(self) -> nn.Module:
        """What makes logits of hidden states."""
        model: Any = self.model
        head: nn.Module = model.get_output_embeddings()
        return head

    @property
    def width(self) -> int:
        """D_llm, which in OPT can differ from the width of the hidden states."""
        return self._embedding.embedding_dim

    @property
    def vocabulary(self) -> int:
        """K, its words: those that have an input embedding."""
        return self._embedding.num_embeddings

    @property
    def table(self) -> Tensor:
        """(K, D_llm), the embeddings of its words before they are multiplied by ``scale``."""
        return self._embedding.weight

    def words(self) -> Tensor:
        """(K, D_llm), ``table``, whole also where ZeRO-3 keeps it in parts, if up to ``scale``."""
        if self.table.numel():
            return self.table.detach()
        with torch.no_grad():
            return self.embed(torch.arange(self.vocabulary))

    @property
    def scale(self) -> float:
        """What it multiplies word embeddings by, as Gemma's do."""
        return float(getattr(self._embedding, "scalar_embed_scale", 1.0))

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder blocks, first to last."""
        layers = self.model.get_submodule(self._layers)
        assert isinstance(layers, nn.ModuleList)
        return layers

    @property
    def max_length(self) -> int:
        """The longest sequence in positions: the recipe's limit or the model's own, whichever is less."""
        return min(self.config.max_length, self.positions or self.config.max_length)

    @property
    def packs(self) -> bool:
        """Whether its attention is one that can be replaced, which packed batches need."""
        return self.model.config._attn_implementation in ("sdpa", NAME)

    def prompter_of(self, template: TemplateName) -> Prompter:
        """A prompter as its own, with another template.

        Raises:
            RecipeError: the template does not take the system message.
        """
        return Prompter(self.tokenizer, template, self.config.separator, self.config.system)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        nn.Module.eval(self.model)
        for name, module in self.model.named_modules():
            if name.endswith("lora_dropout.default"):
                module.train(mode)
        return self

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings (…, D_llm) of token ids (…), as the model itself would make them."""
        embedding = self._embedding
        embeds: Tensor = embedding(ids.to(embedding.weight.device))
        return embeds

    def read(
        self,
        prompts: Sequence[Prompt],
        tokens: Sequence[Sequence[Tensor]],
        numbers: Sequence[Sequence[int]],
        resting: Sequence[Tensor] = (),
    ) -> ForwardContext:
        """A batch as ``forward`` takes it: packed where ``packing`` is set and it pays, else padded on the right.

        Args:
            prompts, tokens, resting: as for ``splice``.
            numbers: per sample, which look at media of its kind each is; equal numbers have the same tokens.

        Raises:
            DataError: as ``splice``.
        """
        limit = self.max_length
        if self.packing is not None:
            readings = [
                read(prompt, [len(values) for values in media], of, limit)
                for prompt, media, of in zip(prompts, tokens, numbers, strict=True)
            ]
            if trees := self.packing.trees(readings):
                return pack(self.embed, readings, trees, tokens, pad_id=self.pad_id, resting=resting)
        return splice(self.embed, prompts, tokens, side="right", pad_id=self.pad_id, max_length=limit, resting=resting)

    def forward(self, context: ForwardContext) -> LLMOutput:
        """Logits at the positions that predict a supervised token, and nowhere else."""
        inputs: dict[str, Any] = {"inputs_embeds": context.embeds}
        asked, which = np.unique(context.predicting, return_inverse=True)
        if context.trees:
            constant = self.packing.keys_values(context.embeds.device) if self.packing is not None else []
            attention = TreeAttention(context, constant, asked, last=len(self.layers) - 1)
            no_mask = context.mask[None, None]  # of four dimensions: transformers then makes none of its own
            inputs |= {"attention_mask": no_mask, "position_ids": context.positions, KEYWORD: attention}
        elif context.padding == "left":
            inputs |= {"attention_mask": context.mask, "position_ids": context.positions}
        rows = placed(asked, context.embeds)
        *lower, last = self.layers
        kept = recomputed(lower, self.recompute, partial(self.during, context))
        with self.during(context), self._head_reads(rows), only_at(last, rows), kept:
            logits = self.model(**inputs, use_cache=False).logits[0]
        if not np.array_equal(
            asked, context.predicting
        ):  # trees in another order, or two tokens predicted at one place
            logits = logits.index_select(0, placed(which, context.embeds))
        return LLMOutput(logits, context.targets)

    @contextmanager
    def _head_reads(self, rows: Tensor) -> Iterator[None]:
        """Hand the output head only these rows of the (B·T) hidden states, as one sequence (1, S, D)."""

        def gather(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (args[0].flatten(0, 1).index_select(0, rows)[None], *args[1:])

        handle = self.head.register_forward_pre_hook(gather)
        try:
            yield
        finally:
            handle.remove()


def _name_of_layers(model: PreTrainedModel, path: str) -> str:
    """The name of the module list that has one entry per hidden layer, the weightiest if there are several."""
    count: int = model.config.get_text_config(decoder=True).num_hidden_layers
    lists = [
        (sum(parameter.numel() for parameter in module.parameters()), name)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if not lists:
        raise RecipeError(path, f"expected {count} decoder blocks in a list, found none in {type(model).__name__}")
    weightiest: str = max(lists)[1]
    return weightiest
