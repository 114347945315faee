"""What users ask of a bridge in memory: captions, answers, the next turn of a conversation."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, overload

import torch
from pydantic import ValidationError
from torch import nn

from mmbridge.answer import Answer
from mmbridge.context import ForwardContext
from mmbridge.data.batch import Batch
from mmbridge.data.collate import Collate
from mmbridge.data.record import CAPTION_PROMPTS
from mmbridge.data.sample import Message, Sample
from mmbridge.errors import UserError
from mmbridge.llm.config import GenerationOptions
from mmbridge.llm.model import LanguageModel
from mmbridge.media_input import MediumInput, MessageInput, as_media, as_messages
from mmbridge.recipe_errors import describe

Conversation = Sequence[MessageInput]

_DESCRIBED = "Describe it."
"""What a caption of anything but an image is asked for with, unless the user says otherwise."""


class Conversing(nn.Module, ABC):
    """Generation for a module that can turn a batch into what its ``llm`` reads.

    Generation runs in evaluation mode and without gradients, and leaves the random state of training alone.
    """

    llm: LanguageModel

    @abstractmethod
    def collate(self, *, training: bool = True) -> Collate:
        """What makes a batch of samples."""

    @abstractmethod
    def spliced(self, batch: Batch, side: Literal["left", "right"]) -> ForwardContext:
        """A batch as the LLM reads it."""

    @overload
    def caption(
        self, media: MediumInput, prompt: str | None = None, options: GenerationOptions | None = None, **changes: Any
    ) -> Answer: ...
    @overload
    def caption(
        self,
        media: Sequence[MediumInput],
        prompt: str | None = None,
        options: GenerationOptions | None = None,
        **changes: Any,
    ) -> list[Answer]: ...
    def caption(
        self,
        media: MediumInput | Sequence[MediumInput],
        prompt: str | None = None,
        options: GenerationOptions | None = None,
        **changes: Any,
    ) -> Answer | list[Answer]:
        """Describes a medium, or each of several: an answer for one, a list for a list, which runs as one batch.

        Args:
            media: paths, bytes, pictures, arrays of vectors or ``Medium``s.
            prompt: what to ask for; a plain request to describe it when left out.
            options, changes: of generation, as an object, by keyword (``beams=3``), or both.

        Raises:
            MediaError: a file that is not what it should be.
            DataError: prompt, perceptual tokens and answer together are too long.
            UserError: no such option.
        """
        usual = {"image": CAPTION_PROMPTS[0]}
        asked = [(one, prompt or usual.get(one.kind, _DESCRIBED)) for one in as_media(media)]
        answers = self.generate([(Message("user", each),) for each in asked], options, **changes)
        return answers if isinstance(media, Sequence) and not isinstance(media, str | bytes) else answers[0]

    def ask(
        self,
        media: MediumInput | Sequence[MediumInput],
        question: str,
        options: GenerationOptions | None = None,
        **changes: Any,
    ) -> Answer:
        """Answers one question about all the media together; arguments and errors as for ``caption``."""
        return self.generate((Message("user", (*as_media(media), question)),), options, **changes)

    @overload
    def generate(self, messages: Conversation, options: GenerationOptions | None = None, **changes: Any) -> Answer: ...
    @overload
    def generate(
        self, messages: Sequence[Conversation], options: GenerationOptions | None = None, **changes: Any
    ) -> list[Answer]: ...
    def generate(
        self,
        messages: Conversation | Sequence[Conversation],
        options: GenerationOptions | None = None,
        **changes: Any,
    ) -> Answer | list[Answer]:
        """What the assistant says next in a conversation, or in each of several, which run as one batch.

        Args:
            messages: ``Message``s, or dictionaries of role and content; a list of such lists for several.
            options, changes: as for ``caption``.

        Raises:
            MediaError, DataError: as ``caption``; nothing is generated when one conversation cannot be used.
        """
        one = bool(messages) and not isinstance(messages[0], Sequence)
        conversations: Any = [messages] if one else messages
        answers = self._generated(conversations, _options(options, changes)) if conversations else []
        return answers[0] if one else answers

    def stream(
        self,
        media: MediumInput | Sequence[MediumInput],
        question: str,
        options: GenerationOptions | None = None,
        **changes: Any,
    ) -> Iterator[str]:
        """``ask`` in pieces, as they are generated.

        Raises:
            UserError: several beams, and what ``ask`` raises.
        """
        message = Message("user", (*as_media(media), question))
        with self.at_rest():
            yield from self.llm.stream(self._asked([(message,)]), _options(options, changes))

    def _generated(self, conversations: Sequence[Conversation], options: GenerationOptions) -> list[Answer]:
        began = time.perf_counter()
        with self.at_rest():
            context = self._asked(conversations)
            texts = self.llm.generate(context, options)
        seconds = (time.perf_counter() - began) / len(texts)
        counts = [sum(span.stop - span.start for span in spans) for spans in context.spans]
        return [Answer(text, count, count, seconds) for text, count in zip(texts, counts, strict=True)]

    @torch.no_grad()
    def _asked(self, conversations: Sequence[Conversation]) -> ForwardContext:
        names = [f"conversation {number}" for number in range(1, len(conversations) + 1)]
        samples = [Sample(name, as_messages(each, name)) for name, each in zip(names, conversations, strict=True)]
        batch = self.collate(training=False)(samples)
        if batch.bad:
            raise batch.bad[0].error
        return self.spliced(batch, "left")

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """In evaluation mode while this lasts."""
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)


def _options(options: GenerationOptions | None, changes: dict[str, Any]) -> GenerationOptions:
    try:
        return GenerationOptions(**((options or GenerationOptions()).model_dump() | changes))
    except ValidationError as error:
        raise UserError("options of generation", describe(error, GenerationOptions)[0].removeprefix(": ")) from None
