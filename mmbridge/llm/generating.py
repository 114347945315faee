"""What a language model says: texts generated for a batch, whole or as they come."""

from abc import ABC
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from threading import Event, Thread
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from mmbridge.context import ForwardContext
from mmbridge.errors import DataError, UserError
from mmbridge.llm.config import GenerationOptions
from mmbridge.llm.generation import Finish, Pieces, Until, request
from mmbridge.llm.layout import TurnedWeights
from mmbridge.llm.prompt import Prompter


class Generating(nn.Module, ABC):
    """Generation for a module that holds a causal LM.

    ``context`` is the batch in work; ``positions`` how many the model has embeddings for, if there is such a number;
    ``pad_id`` a token that has an embedding. ``turned`` are second copies of weights, for a single sample on a CPU.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompter: Prompter
    context: ForwardContext | None
    positions: int | None
    pad_id: int

    def __init__(self) -> None:
        super().__init__()
        self.turned = TurnedWeights()

    def generate(self, context: ForwardContext, options: GenerationOptions | None = None) -> list[str]:
        """One text per sample of a left-padded batch, without special tokens and outer whitespace.

        Generation ends at the tokens the model's generation config, its tokenizer and the chat template end a turn
        with. Equal prompts, options and seed give equal texts, whatever the rest of the batch; the global random
        state is neither read nor changed.

        Raises:
            DataError: prompt and answer together exceed the positions the model has embeddings for.
        """
        options = options or GenerationOptions()
        finish = Finish(self.tokenizer, self.prompter.stop_text)
        return [finish(ids) for ids in self._generated(context, options).tolist()]

    def stream(self, context: ForwardContext, options: GenerationOptions | None = None) -> Iterator[str]:
        """The text of a single sample in pieces, as it is generated; joined they are what ``generate`` returns.

        Raises:
            UserError: for several samples or beams, and what ``generate`` raises.
        """
        options = options or GenerationOptions()
        if len(context.samples) != 1 or options.beams > 1:
            raise UserError(
                "stream", f"expected one sample and one beam, found {len(context.samples)} and {options.beams}"
            )
        pieces = Pieces(self.tokenizer, Finish(self.tokenizer, self.prompter.stop_text))
        left, faults = Event(), list[BaseException]()

        def work() -> None:
            try:
                self._generated(context, options, streamer=pieces, stopping_criteria=Until(left))
            except BaseException as fault:  # handed over to the reader below
                faults.append(fault)
                pieces.end()

        thread = Thread(target=work, daemon=True)
        thread.start()
        try:
            yield from (piece for piece in pieces if piece)
        finally:
            left.set()
            thread.join()
        if faults:
            raise faults[0]

    @torch.no_grad()
    def _generated(self, context: ForwardContext, options: GenerationOptions, **keywords: Any) -> Tensor:
        assert context.padding == "left" or len(context.samples) == 1
        room = None if self.positions is None else self.positions - context.ids.shape[1]
        if room is not None and options.max_new_tokens > room:
            problem = (
                f"expected room for {options.max_new_tokens} new tokens, found {room} of {self.positions} positions"
            )
            raise DataError(f"sample {context.samples[int(context.mask.sum(1).argmax())]}", problem)
        model: Any = self.model
        asked = request(
            options,
            ends=self.ends(),
            pad_id=self.pad_id,
            stop_text=self.prompter.stop_text,
            tokenizer=self.tokenizer,
        )
        alone = len(context.samples) == 1 and options.beams == 1
        turned = self.turned.of(self.model) if alone else nullcontext()
        with self.during(context), self._own_defaults_aside(), turned:
            ids: Tensor = model.generate(
                inputs_embeds=context.embeds,
                attention_mask=context.mask.long(),
                position_ids=context.positions,
                **asked,
                **keywords,
            )
        return ids

    def ends(self) -> list[int]:
        """Tokens that end a turn, in ascending order."""
        own = getattr(self.model.generation_config, "eos_token_id", None)
        ends = {self.tokenizer.eos_token_id, self.prompter.stop_id, *(own if isinstance(own, list) else [own])}
        return sorted(end for end in ends if end is not None)

    @contextmanager
    def during(self, context: ForwardContext) -> Iterator[None]:
        self.context = context
        try:
            yield
        finally:
            self.context = None

    @contextmanager
    def _own_defaults_aside(self) -> Iterator[None]:
        """Without the sampling, penalties and lengths of the model's generation config, which would fill our gaps."""
        model, plain = cast(Any, self.model), cast(Any, GenerationConfig)
        own, model.generation_config = model.generation_config, plain()
        try:
            yield
        finally:
            model.generation_config = own
