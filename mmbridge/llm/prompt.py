"""From messages to token ids: where media go, and which tokens are supervised.

Perceptual tokens are put in by position later on, so a placeholder is one token whatever length its medium has; it is
never embedded, and adding it to the tokenizer leaves the model's embeddings alone. Text is tokenised once, as a whole.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from mmbridge.data.sample import Medium, MediumKind, Message, Sample
from mmbridge.errors import DataError, RecipeError
from mmbridge.llm.chat import ChatTemplate, Extent, TemplateFaultError, reads_strings, turns_of
from mmbridge.llm.templates import TemplateName, flattened, named_template

PLACEHOLDERS: dict[MediumKind, str] = {
    "image": "<image>", "audio": "<audio>", "video": "<video>", "vector": "<vector>",
}  # fmt: skip

_NAME_ONE = "name a chat template that fits with llm.template"


@dataclass(frozen=True, slots=True)
class Placeholder:
    """The token at ``position`` of a prompt stands for a medium."""

    position: int
    medium: MediumKind


@dataclass(frozen=True, slots=True)
class Prompt:
    """One sample's token ids, placeholders included; ``supervised`` is true at tokens the assistant says.

    ``placeholders`` are in the order of the sample's media; ``text`` is what was tokenised.
    """

    sample: str
    ids: tuple[int, ...]
    supervised: tuple[bool, ...]
    placeholders: tuple[Placeholder, ...]
    text: str


class Prompter:
    """Writes prompts for one tokenizer and chat template. Can be pickled; works in loader workers.

    Args:
        tokenizer: a fast tokenizer; the placeholders are added to it where it lacks them.
        template: a named template, or ``None`` for the tokenizer's own.
        separator: put between a medium and the text that follows it, unless the tokenizer's own template reads
            content in parts (as a LLaVA processor's does) and so places media itself.
        system: the system message of conversations that bring none.

    Special tokens in front of the text follow transformers: a text-only chat template writes its own; otherwise the
    tokenizer adds them, unless the text already begins with the bos token (``ProcessorMixin.apply_chat_template``).

    Raises:
        RecipeError: the tokenizer is not a fast one, has no chat template, or one that cannot be used.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: TemplateName | None = None,
        separator: str = "\n",
        system: str | None = None,
    ) -> None:
        if not tokenizer.is_fast:
            raise RecipeError("llm.path", f"expected a fast tokenizer, found {type(tokenizer).__name__}")
        added = [AddedToken(token, special=True, normalized=False) for token in PLACEHOLDERS.values()]
        tokenizer.add_tokens(list(added), special_tokens=True)
        self.tokenizer = tokenizer
        self._kinds = {_id(tokenizer, token): kind for kind, token in PLACEHOLDERS.items()}
        self._system = Message("system", (system,)) if system else None
        source = named_template(template, separator) if template else _own_template(tokenizer)
        text_only = template is None and reads_strings(source, tokenizer)
        self._bos = None if text_only else (tokenizer.bos_token or "")
        try:
            self.template = ChatTemplate(flattened(source, separator) if text_only else source, tokenizer)
        except TemplateFaultError as fault:
            where = "llm.template" if template else "llm.path"
            raise RecipeError(where, f"the chat template cannot be used: {fault}", _NAME_ONE) from fault
        if self._system:
            self._refuse_placeholders("llm.system", (self._system,))
            try:
                self.template.prompt(turns_of((self._system, Message("user", ("mmbridge asks",)))))
            except TemplateFaultError as fault:
                raise RecipeError("llm.system", str(fault), "leave the system message out") from fault

    @property
    def chat_template(self) -> str:
        """The Jinja template in use: it reads content in parts and can be written into a processor's folder."""
        return self.template.source

    @property
    def stop_id(self) -> int | None:
        """The token that ends the assistant's turn, if the template ends it with one."""
        return None if self.template.end is None else _id(self.tokenizer, self.template.end)

    @property
    def stop_text(self) -> str | None:
        """The text that ends the assistant's turn where no token does: a newline under ``plain``."""
        return None if self.template.end is not None else self.template.tail.strip(" ") or None

    @cached_property
    def opening(self) -> tuple[int, ...]:
        """The token ids that conversations begin with, whatever is said in them; a system message of their own or
        another tokenisation can make an exception."""
        medium = Medium("image", b"")
        asked: list[tuple[str | Medium, ...]] = [(medium, "What is it?"), ("A dog?", medium), ("2 or 3?", medium)]
        ids = [self.generation([Message("user", content)]).ids for content in asked]
        alike = takewhile(lambda column: len({*column}) == 1 and column[0] not in self._kinds, zip(*ids, strict=False))
        return tuple(column[0] for column in alike)

    def training(self, sample: Sample) -> Prompt:
        """The prompt of a whole conversation; what the assistant says, its ends of turns included, is supervised.

        Raises:
            DataError: with the sample's id: nothing is supervised, media and placeholders do not match, the text
                holds a literal placeholder, or the chat template refuses the conversation.
        """
        messages = self._complete(sample.id, sample.messages)
        try:
            text, spans = self.template.conversation(turns_of(messages))
        except TemplateFaultError as fault:
            raise DataError(f"sample {sample.id}", str(fault)) from fault
        prompt = self._tokenise(sample.id, messages, text, spans)
        if not any(prompt.supervised):
            raise DataError(f"sample {sample.id}", "expected an answer to learn from, found no supervised token")
        if self.stop_id is None and self.stop_text is None:
            warnings.warn("the chat template ends no turn of the assistant: nothing learns to stop", stacklevel=2)
        return prompt

    def generation(self, messages: Sequence[Message], sample_id: str = "") -> Prompt:
        """The prompt up to where the assistant's next turn begins; nothing is supervised.

        Raises:
            DataError: as for ``training``, and when the last message is the assistant's.
        """
        messages = self._complete(sample_id, messages)
        if messages[-1].role == "assistant":
            raise DataError(f"sample {sample_id}", "expected a last message of the user, found the assistant's")
        try:
            text = self.template.prompt(turns_of(messages))
        except TemplateFaultError as fault:
            raise DataError(f"sample {sample_id}", str(fault)) from fault
        return self._tokenise(sample_id, messages, text, [])

    def _complete(self, sample: str, messages: Sequence[Message]) -> tuple[Message, ...]:
        if not messages:
            raise DataError(f"sample {sample}", "expected messages, found none")
        self._refuse_placeholders(f"sample {sample}", messages)
        system = (self._system,) if self._system and messages[0].role != "system" else ()
        return (*system, *messages)

    def _refuse_placeholders(self, where: str, messages: Sequence[Message]) -> None:
        texts = (part for message in messages for part in message.content if isinstance(part, str))
        for text in texts:
            try:
                text.encode()
            except UnicodeEncodeError:  # JSON can say it, no tokenizer can read it
                raise DataError(where, "expected Unicode text, found half of a surrogate pair in it") from None
            if "<" in text and (found := next((each for each in PLACEHOLDERS.values() if each in text), None)):
                problem = f"the text contains {found!r}, which is kept for media"
                raise DataError(where, problem, "give the medium as its own part of the message")

    def _tokenise(self, sample: str, messages: Sequence[Message], text: str, spans: Sequence[Extent]) -> Prompt:
        specials = self._bos is not None and not (self._bos and text.startswith(self._bos))
        read = self.tokenizer(
            text,
            add_special_tokens=specials,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        ids: list[int] = read["input_ids"]
        placeholders = tuple(
            Placeholder(position, self._kinds[token]) for position, token in enumerate(ids) if token in self._kinds
        )
        media = [medium.kind for message in messages for medium in message.media]
        if media != [placeholder.medium for placeholder in placeholders]:
            found = ", ".join(placeholder.medium for placeholder in placeholders) or "none"
            expected = ", ".join(media) or "none"
            raise DataError(f"sample {sample}", f"expected placeholders for media [{expected}], found [{found}]")
        supervised = _covered(read["offset_mapping"], spans)
        for placeholder in placeholders:
            supervised[placeholder.position] = False
        return Prompt(sample, tuple(ids), tuple(supervised), placeholders, text)


def _id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    number = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(number, int)
    return number


def _own_template(tokenizer: PreTrainedTokenizerBase) -> str:
    try:
        return tokenizer.get_chat_template()
    except ValueError as fault:
        raise RecipeError("llm.path", "the model has no chat template of its own", _NAME_ONE) from fault


def _covered(offsets: Sequence[Extent], spans: Sequence[Extent]) -> list[bool]:
    """Which tokens hold a character of a span; spans are in order and apart.

    Byte-level tokenizers trim whitespace off a token's offsets, so a token is taken to begin where the one before
    ends. Tokens the tokenizer put in by itself have no characters.
    """
    covered, before, index = [False] * len(offsets), 0, 0
    for token, (start, stop) in enumerate(offsets):
        start = min(start, before)
        before = max(before, stop)
        while index < len(spans) and spans[index][1] <= start:
            index += 1
        covered[token] = index < len(spans) and stop > start and stop > spans[index][0]
    return covered
