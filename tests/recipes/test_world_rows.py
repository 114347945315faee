"""Rows of quizzes: a conversation among others is trained as if it stood alone."""

import pytest
import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mmbridge.data.world.corpus import LESSONS, quiz
from mmbridge.frozen import locate
from mmbridge.recipes.world_llm import Pretraining
from mmbridge.recipes.world_rows import Rows, rows, text


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    found: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(locate("world:llm"))
    return found


def conversations(batch: Rows) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(ids, answers) of every conversation of a batch as it would stand alone, in the order of the rows."""
    found = []
    for row in range(len(batch.ids)):
        for number in range(1, int(batch.quizzes[row].max()) + 1):
            here = batch.quizzes[row] == number
            told = here & (batch.talks[row] == 0)
            for place in range(1, int(batch.talks[row][here].max()) + 1):
                chosen = told | (here & (batch.talks[row] == place))
                found.append((batch.ids[row][chosen], batch.answers[row][chosen]))
    return found


@pytest.mark.parametrize("lesson", range(len(LESSONS)))
def test_losses_equal_those_of_each_conversation_alone(tokenizer: PreTrainedTokenizerFast, lesson: int) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
        initializer_range=0.3,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    batch = next(rows(tokenizer, (4, 192), lesson=lesson))
    together = Pretraining(model, torch.device("cpu")).each(batch)
    alone = []
    for ids, answers in conversations(batch):
        each = F.cross_entropy(model(ids[None]).logits[0, :-1], ids[1:], reduction="none")
        alone.append(each[answers[1:].bool()])
    assert len(alone) > 10
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)


def test_rows_hold_the_quizzes_as_the_chat_template_writes_them(tokenizer: PreTrainedTokenizerFast) -> None:
    ids, answers = conversations(next(rows(tokenizer, (2, 192))))[0]
    one = quiz(0, 0)
    (_, question), (_, answer), *_ = one.talks[0]
    asked = [{"role": "user", "content": f"{one.told}\n{question}" if one.told else question}]
    turns = [*asked, {"role": "assistant", "content": answer}]
    assert ids.tolist()[: len(tokenizer.apply_chat_template(turns, return_dict=False))] == (
        tokenizer.apply_chat_template(turns, return_dict=False)
    )
    assert tokenizer.decode(ids) == tokenizer.decode(
        tokenizer(text(one.told, one.talks[0]), add_special_tokens=False)["input_ids"]
    )
    spoken = tokenizer.decode(ids[answers.bool()])
    assert answer in spoken
    assert question not in spoken
