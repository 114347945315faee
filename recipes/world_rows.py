"""Quizzes as rows of token ids, for the pretraining of the embedded world's language model.

A quiz's text is read once and its conversations stand one after the other behind it. A conversation attends to the text
and to itself, and its positions go on from the text's, so that its loss is the same as if it stood alone; several
quizzes share a row in the same way. Four times as many answers are learnt from a token as with one question a text.
"""

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from mmbridge.data.world.corpus import quiz
from mmbridge.data.world.quiz import Quiz, Turns

PAD, BOS, END, USER, ASSISTANT, SYSTEM = "<pad>", "<s>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"


class Rows(NamedTuple):
    """All (B, T): token ids, positions, whose text and which conversation a token is of, which tokens are answers.

    ``talks`` is 0 on a text and counts the conversations behind it; ``quizzes`` is 0 on padding.
    """

    ids: Tensor
    positions: Tensor
    quizzes: Tensor
    talks: Tensor
    answers: Tensor

    def mask(self) -> Tensor:
        """Additive attention mask (B, 1, T, T): a token sees what stands before it in its text and conversation."""
        seen = torch.ones(self.ids.shape[1], self.ids.shape[1], dtype=torch.bool, device=self.ids.device).tril()
        seen = seen & self.quizzes[:, :, None].eq(self.quizzes[:, None])
        seen &= self.talks[:, None].eq(0) | self.talks[:, :, None].eq(self.talks[:, None])
        return torch.zeros(seen.shape, dtype=torch.bfloat16, device=seen.device).masked_fill_(~seen, -1e9)[:, None]


def text(told: str, talk: Turns) -> str:
    """A conversation as the chat template writes it, ``told`` at its head."""
    (role, first), *others = talk
    turns = [(role, f"{told}\n{first}" if told else first), *others]
    return BOS + "".join(f"<|{role}|>{words}{END}" for role, words in turns)


def written(ids: Tensor, assistant: int, end: int) -> Tensor:
    """Which of a conversation's tokens the assistant wrote: after its tag, up to and with its end mark. (T,)."""
    opened = (ids == assistant).cumsum(0)
    ended = (ids == end).cumsum(0) - (ids == end).long()
    return (2 * opened - ended == 1) & (opened > 0) & (ids != assistant)


class Encoder:
    """Turns quizzes into ids: the text's, and those of each conversation that goes on from it."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        vocabulary = tokenizer.get_vocab()
        self.assistant, self.end = vocabulary[ASSISTANT], vocabulary[END]

    def __call__(self, one: Quiz) -> tuple[list[int], list[list[int]]]:
        head = f"{BOS}{USER}{one.told}"
        texts = [head, *(text(one.told, talk) for talk in one.talks)]
        told, *whole = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        if any(ids[: len(told)] != told for ids in whole):  # the text's last token would join the question's first
            raise AssertionError(f"the tokenizer does not part {head!r} from what follows")
        return told, [ids[len(told) :] for ids in whole]


def rows(
    tokenizer: PreTrainedTokenizerFast,
    shape: tuple[int, int],
    *,
    lesson: int = -1,
    seed: int = 0,
    held_out: bool = False,
) -> Iterator[Rows]:
    """Endless batches of a lesson, each of ``shape`` (B, T); conversations that no longer fit a row are left out."""
    encode = Encoder(tokenizer)
    drawn = (encode(quiz(seed, index, lesson=lesson, held_out=held_out)) for index in count())
    stream = ((told, talks) for told, talks in drawn if len(told) + len(talks[0]) <= shape[1])
    told, talks = next(stream)
    while True:
        batch = Rows(*(torch.zeros(shape, dtype=torch.long) for _ in Rows._fields))
        for row in range(shape[0]):
            at, number = 0, 0
            while at + len(told) + len(talks[0]) <= shape[1]:
                number += 1
                for place, part in enumerate([told, *talks]):
                    span = slice(at, at + len(part))
                    if span.stop > shape[1]:
                        break
                    at, begin = span.stop, len(told) if place else 0
                    ids = batch.ids[row, span] = torch.tensor(part)
                    batch.positions[row, span] = torch.arange(begin, begin + len(part))
                    batch.quizzes[row, span], batch.talks[row, span] = number, place
                    if place:
                        batch.answers[row, span] = written(ids, encode.assistant, encode.end).long()
                told, talks = next(stream)
        yield batch
