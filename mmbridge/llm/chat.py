"""Chat templates at the level of text: a conversation becomes one string and the spans the assistant speaks in it.

Spans come from the template's ``{% generation %}`` marks when it has them. Without marks a turn begins where the
prompt for it ends (checked to be a prefix of the whole) and ends with the first end-of-turn token behind that.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from mmbridge.data.sample import Message

_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
_EMPTY_THOUGHT = re.compile(r"<think>\s*</think>\s*\Z")
_OPEN_THOUGHT = re.compile(r"<think>\s*\Z")
_ANSWER = "mmbridge answers"

Turn = Mapping[str, Any]
Extent = tuple[int, int]

# Typed by what it returns: a text per conversation, and per conversation the marked extents.
_rendered = cast(Callable[..., tuple[list[str], list[list[Extent]]]], render_jinja_template)


class TemplateFaultError(Exception):
    """A conversation the template refuses, or a template whose turns cannot be told apart; said in part of a line."""


class ChatTemplate:
    """A Jinja chat template with the tokenizer's names for special tokens.

    ``end`` is the token that closes the assistant's turn, ``None`` where the template writes no token there;
    ``tail`` is the marked text between the end of an answer and the end of its span.
    """

    def __init__(self, source: str, tokenizer: PreTrainedTokenizerBase) -> None:
        self.source = source
        self.marked = _MARK.search(source) is not None
        # Thinking is off, or Qwen3 and its like would spend the answer's tokens on it.
        self._variables = {**tokenizer.special_tokens_map, "enable_thinking": False}
        text, spans = self._render(_probe(), marks=self.marked)
        if (found := text.rfind(_ANSWER)) < 0:
            raise TemplateFaultError("it does not write what the assistant says")
        behind = found + len(_ANSWER)
        self.tail = ""
        if self.marked:
            if not any(start <= found and behind <= stop for start, stop in spans):
                raise TemplateFaultError("its {% generation %} marks are not around what the assistant says")
            self.tail = text[behind : max(stop for _, stop in spans)]
        self.end = _closing(text, behind, tokenizer)
        self._ends = {self.end}
        if not self.marked:  # gpt-oss closes an earlier turn with another token than the last
            followed = self._render([*_probe(), _probe()[0]])[0]
            self._ends.add(_closing(followed, followed.rfind(_ANSWER) + len(_ANSWER), tokenizer))
        if not self.marked and None in self._ends:
            raise TemplateFaultError("it has no {% generation %} marks and ends the assistant's turn with no token")

    def prompt(self, turns: Sequence[Turn]) -> str:
        """The conversation as text, with the opening of the assistant's next turn.

        A thought that DeepSeek-R1's template opens there is left out, as it is from the answers learnt from.
        """
        return _OPEN_THOUGHT.sub("", self._render(turns, opening=True)[0])

    def conversation(self, turns: Sequence[Turn]) -> tuple[str, list[Extent]]:
        """The conversation as text, and where in it the assistant speaks (ends of turns included)."""
        text, spans = self._render(turns, marks=self.marked)
        return text, spans if self.marked else self._spans(turns, text)

    def _spans(self, turns: Sequence[Turn], text: str) -> list[Extent]:
        spans: list[Extent] = []
        for index, turn in enumerate(turns):
            if turn["role"] != "assistant":
                continue
            opening = self.prompt(turns[:index])
            # Qwen3 opens the last turn with an empty thought and leaves it out of the earlier ones.
            openings = (opening, _EMPTY_THOUGHT.sub("", opening))
            start = next((len(each) for each in openings if text.startswith(each)), -1)
            if start < 0:
                raise TemplateFaultError("the chat template rewrites earlier turns, so the answers cannot be found")
            ends = [end for end in self._ends if end is not None]
            if held := next((end for end in ends for part in turn["content"] if end in part.get("text", "")), None):
                raise TemplateFaultError(f"the answer holds {held!r}, which the chat template ends turns with")
            closings = [(found, found + len(end)) for end in ends if (found := text.find(end, start)) >= 0]
            if not closings:
                raise TemplateFaultError("the chat template closes no turn behind the answer")
            spans.append((start, min(closings)[1]))
        return spans

    def _render(self, turns: Sequence[Turn], *, opening: bool = False, marks: bool = False) -> tuple[str, list[Extent]]:
        try:
            texts, spans = _rendered(
                [list(turns)],
                chat_template=self.source,
                add_generation_prompt=opening,
                return_assistant_tokens_mask=marks,
                **self._variables,
            )
        except Exception as fault:  # Jinja, and whatever the template's own expressions raise
            raise TemplateFaultError(f"the chat template refuses it ({_line(fault)})") from fault
        return texts[0], [(start, stop) for start, stop in spans[0] if stop > start] if marks else []


def turns_of(messages: Sequence[Message]) -> list[Turn]:
    """Messages as chat templates read them: content in parts, neighbouring texts joined."""
    turns: list[Turn] = []
    for message in messages:
        parts: list[dict[str, str]] = []
        for part in message.content:
            if not isinstance(part, str):
                parts.append({"type": part.kind})
            elif parts and parts[-1]["type"] == "text":
                parts[-1]["text"] += part
            elif part:
                parts.append({"type": "text", "text": part})
        turns.append({"role": message.role, "content": parts})
    return turns


def reads_strings(template: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a chat template takes a message's content as one string (a text model's does, LLaVA's does not)."""
    turns = [{**turn, "content": turn["content"][0]["text"]} for turn in _probe()]
    try:
        texts, _ = _rendered([turns], chat_template=template, **tokenizer.special_tokens_map)
    except Exception:  # a template made for parts may fail in any way on a string
        return False
    return _ANSWER in texts[0]


def _closing(text: str, behind: int, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The token, if one, that stands at this place of a text, white space aside."""
    tokens = (token.content for token in tokenizer.added_tokens_decoder.values())
    names = sorted((token for token in tokens if token.strip()), key=len, reverse=True)
    closing = re.compile(r"\s*(" + "|".join(map(re.escape, names)) + ")").match(text, behind) if names else None
    return closing[1] if closing else None


def _probe() -> list[Turn]:
    return [
        {"role": "user", "content": [{"type": "text", "text": "mmbridge asks"}]},
        {"role": "assistant", "content": [{"type": "text", "text": _ANSWER}]},
    ]


def _line(fault: Exception) -> str:
    return (str(fault).strip() or type(fault).__name__).splitlines()[0]
