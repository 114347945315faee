"""Generation: transformers' own ``generate`` with our options, sampling noise that is ours, and streaming.

The model's own generation defaults (penalties, sampling) are left aside; of them only the end tokens count. Sampling
takes the likeliest token after Gumbel noise is added to the log-probabilities, which draws from the same distribution
as sampling them, needs no global random state, and gives a prompt the same text whatever else is in its batch.
"""

from collections.abc import Sequence
from threading import Event
from typing import Any

import torch
from torch import FloatTensor, LongTensor, Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TextIteratorStreamer,
    TopPLogitsWarper,
)

from mmbridge.llm.config import GenerationOptions

__all__ = ["Finish", "GenerationOptions", "Pieces", "Until", "request"]


def request(
    options: GenerationOptions, *, ends: Sequence[int], pad_id: int, stop_text: str | None, tokenizer: Any
) -> dict[str, Any]:
    """Keywords for transformers' ``generate``: stop at a token of ``ends`` or behind ``stop_text``."""
    settings: Any = GenerationConfig
    config = settings(
        max_new_tokens=options.max_new_tokens,
        num_beams=options.beams,
        do_sample=False,
        eos_token_id=list(ends) or None,
        pad_token_id=pad_id,
        use_cache=True,
        stop_strings=None if stop_text is None else [stop_text],
    )
    keywords: dict[str, Any] = {"generation_config": config}
    if stop_text is not None:
        keywords["tokenizer"] = tokenizer
    if options.temperature > 0:
        warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(options.temperature)]
        if options.top_p < 1:
            warpers.append(TopPLogitsWarper(options.top_p))
        keywords["logits_processor"] = LogitsProcessorList([*warpers, _Gumbel(options.seed)])
    return keywords


class _Gumbel(LogitsProcessor):
    """Adds seeded Gumbel noise, the same to every row of the batch."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids: LongTensor, scores: FloatTensor) -> FloatTensor:
        noise = torch.empty(scores.shape[-1]).exponential_(generator=self._generator).log_().neg_()
        return scores + noise.to(scores)  # type: ignore[return-value]


class Finish:
    """From generated ids to the text a user sees: no special tokens, nothing behind ``stop_text``, no outer space."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop_text: str | None) -> None:
        self._tokenizer, self._stop_text = tokenizer, stop_text

    def __call__(self, ids: Sequence[int]) -> str:
        text = str(self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
        if self._stop_text is not None:
            text = text.partition(self._stop_text)[0]
        return text.strip()


class Pieces(TextIteratorStreamer):
    """Iterates over pieces that together are exactly what ``Finish`` makes of all ids.

    The library's own streamer forgets its tokens at every newline, and with them a space that follows.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, finish: Finish) -> None:
        super().__init__(tokenizer)
        self._finish, self._ids, self._sent = finish, list[int](), 0

    def put(self, value: Tensor) -> None:
        self._ids += value.flatten().tolist()
        text = self._finish(self._ids).rstrip("\ufffd")  # a character of which bytes are still to come
        if len(text) > self._sent:
            self.on_finalized_text(text[self._sent :])
            self._sent = len(text)

    def end(self) -> None:
        self.on_finalized_text(self._finish(self._ids)[self._sent :], stream_end=True)


class Until(StoppingCriteriaList):
    """Stops generation once ``event`` is set: the reader of a stream has left."""

    def __init__(self, event: Event) -> None:
        super().__init__([_Left(event)])


class _Left(StoppingCriteria):
    def __init__(self, event: Event) -> None:
        self._event = event

    def __call__(self, input_ids: LongTensor, scores: Any, **_: Any) -> Any:
        return torch.full((len(input_ids),), self._event.is_set(), device=input_ids.device)
