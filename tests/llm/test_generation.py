"""Generation: seeded sampling that is sampling, stopping, streaming, and nothing left behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from mmbridge.context import ForwardContext
from mmbridge.data.sample import conversation
from mmbridge.errors import DataError, UserError
from mmbridge.llm.config import GenerationOptions, LLMConfig
from mmbridge.llm.generation import request
from mmbridge.llm.model import LanguageModel
from mmbridge.llm.prompt import Prompt
from mmbridge.llm.splice import splice
from tests.tiny import tiny_llm

Model = Callable[..., LanguageModel]


def contexts(llm: LanguageModel, *rows: list[int]) -> ForwardContext:
    prompts = [Prompt(str(number), tuple(row), (False,) * len(row), (), "") for number, row in enumerate(rows)]
    return splice(llm.embed, prompts, [[] for _ in rows], side="left", pad_id=llm.pad_id, max_length=llm.max_length)


def favour(llm: LanguageModel, step: Callable[[int], int]) -> Any:
    """Make the model say ``step(n)`` as its n-th new token; returns the hook's handle."""
    inner: Any = llm.model
    count = [0]

    def rule(_: Any, args: Any, logits: Tensor) -> Tensor:
        forced = torch.full_like(logits, -50.0)
        forced[..., step(count[0])] = 50.0
        count[0] += 1
        return forced

    return inner.get_output_embeddings().register_forward_hook(rule)


def drawn(llm: LanguageModel, logits: Tensor, count: int, **options: Any) -> Tensor:
    """What ``count`` seeds make of one step's logits (V): how often each token (V) is the likeliest after the noise."""
    counts = torch.zeros(len(logits))
    for seed in range(count):
        given = GenerationOptions(seed=seed, **options)
        processors = request(given, ends=[], pad_id=0, stop_text=None, tokenizer=llm.tokenizer)["logits_processor"]
        counts[processors(torch.empty(1, 0, dtype=torch.long), logits[None]).argmax()] += 1
    return counts


def test_sampling_draws_from_the_tempered_distribution(llm: Model) -> None:
    logits, draws = torch.tensor([2.0, 1.5, 1.0, 0.0, -1.0, -4.0]), 2000
    expected = (logits / 0.5).softmax(-1)
    shares = drawn(llm("llama"), logits, draws, temperature=0.5) / draws
    assert ((shares - expected).abs() < 4 * (expected * (1 - expected) / draws).sqrt() + 1e-3).all()


def test_top_p_keeps_the_likeliest_tokens_only(llm: Model) -> None:
    logits = torch.tensor([2.0, 1.5, 1.0, 0.0, -1.0, -4.0])
    assert logits.softmax(-1)[:2].sum() < 0.75 < logits.softmax(-1)[:3].sum()
    counts = drawn(llm("llama"), logits, 200, temperature=1.0, top_p=0.75)
    assert counts[:3].min() > 0
    assert counts[3:].sum() == 0


def test_seeds_decide_and_the_global_state_is_left_alone(llm: Model) -> None:
    model, rows = llm("qwen2"), ([5, 6, 7], list(range(20, 31)), [9])
    options = [GenerationOptions(max_new_tokens=12, temperature=1.5, seed=seed) for seed in (1, 1, 2)]
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, again, other = (model.generate(contexts(model, *rows), each) for each in options)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert first == again == model.generate(contexts(model, *rows), options[0])
    assert first != other
    alone = [model.generate(contexts(model, row), options[0])[0] for row in rows]
    assert first == alone


def test_the_model_s_own_sampling_defaults_are_left_aside(tmp_path: Path) -> None:
    model = LLMConfig(path=str(tiny_llm(tmp_path))).build()
    plain = model.generate(contexts(model, [5, 6, 7]))
    defaults: Any = model.model.generation_config
    defaults.update(do_sample=True, temperature=2.0, repetition_penalty=5.0, no_repeat_ngram_size=1, top_k=3)
    defaults.update(num_return_sequences=2, min_new_tokens=30, max_length=5)
    assert model.generate(contexts(model, [5, 6, 7])) == plain
    assert model.model.generation_config is defaults


def test_it_stops_at_any_end_token(tmp_path: Path) -> None:
    model = LLMConfig(path=str(tiny_llm(tmp_path))).build()
    ends = model.ends()
    assert ends == sorted([model.tokenizer.eos_token_id, model.tokenizer.convert_tokens_to_ids("<|im_end|>")])
    word = model.tokenizer.encode(" red", add_special_tokens=False)[-1]
    for end in ends:
        handle = favour(model, lambda count, end=end: end if count == 2 else word)  # type: ignore[misc]
        ids = model._generated(contexts(model, [5]), GenerationOptions())
        assert ids.tolist() == [[word, word, end]]
        handle.remove()
    handle = favour(model, lambda count: ends[0] if count == 2 else word)
    assert "<" not in model.generate(contexts(model, [5]))[0]
    handle.remove()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_template_without_end_token_stops_at_its_text(family: str, tmp_path: Path) -> None:
    model = LLMConfig(path=str(tiny_llm(tmp_path, family)), template="plain").build()
    assert model.prompter.stop_text == "\n"
    said = model.tokenizer.encode("A star.\nAnd more", add_special_tokens=False)
    handle = favour(model, lambda count: said[count % len(said)])
    context = contexts(model, [5])
    assert model.generate(context) == ["A star."]
    handle.remove()
    handle = favour(model, lambda count: said[count % len(said)])
    assert "".join(model.stream(context)) == "A star."
    handle.remove()


@pytest.mark.parametrize("family", ["qwen2", "gpt2", "opt"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_pieces_of_a_stream_are_the_text(family: str, temperature: float, llm: Model) -> None:
    model = llm(family)
    longest = 0
    for seed in range(3):
        context = contexts(model, [5, 6 + seed, 7])
        options = GenerationOptions(max_new_tokens=16, temperature=temperature, seed=seed)
        pieces = list(model.stream(context, options))
        assert "".join(pieces) == model.generate(context, options)[0]
        longest = max(longest, len(pieces))
    assert longest > 2
    assert model.context is None


def test_a_stream_holds_back_half_a_character_and_outer_space(llm: Model) -> None:
    model = llm("qwen2")
    said: list[int] = model.tokenizer.encode("  é 红 \n x \n", add_special_tokens=False)
    handle = favour(model, lambda count: said[count] if count < len(said) else model.ends()[0])
    pieces = list(model.stream(contexts(model, [5])))
    handle.remove()
    assert "".join(pieces) == "é 红 \n x"
    assert not any("\ufffd" in piece for piece in pieces)


def test_leaving_a_stream_ends_generation(llm: Model) -> None:
    model, count = llm("qwen2"), [0]
    word: int = model.tokenizer.encode("red", add_special_tokens=False)[0]

    def step(number: int) -> int:
        count[0] = number
        return word

    handle = favour(model, step)
    for _ in model.stream(contexts(model, [5]), GenerationOptions(max_new_tokens=250)):
        break
    handle.remove()
    assert count[0] < 240
    assert model.context is None


def test_a_failure_in_a_stream_reaches_its_reader(llm: Model) -> None:
    model = llm("qwen2")

    def fail(number: int) -> int:
        if number == 2:
            raise ZeroDivisionError
        return 7

    handle = favour(model, fail)
    with pytest.raises(ZeroDivisionError):
        list(model.stream(contexts(model, [5])))
    handle.remove()
    assert model.context is None


def test_one_stream_is_one_sample_and_one_beam(llm: Model) -> None:
    model = llm("llama")
    with pytest.raises(UserError, match="expected one sample and one beam, found 2 and 1"):
        next(model.stream(contexts(model, [5], [6])))
    with pytest.raises(UserError, match="expected one sample and one beam, found 1 and 3"):
        next(model.stream(contexts(model, [5]), GenerationOptions(beams=3)))


def test_more_positions_than_the_model_has(llm: Model) -> None:
    model = llm("gpt2")
    context = contexts(model, [6], [5] * 250)
    assert len(model.generate(context, GenerationOptions(max_new_tokens=6))) == 2
    with pytest.raises(DataError, match=r"^sample 1: expected room for 7 new tokens, found 6 of 256 positions$"):
        model.generate(context, GenerationOptions(max_new_tokens=7))


def test_a_whole_answer_from_messages(llm: Model) -> None:
    model = llm("llama")
    prompt = model.prompter.generation(conversation(("user", ["Is there a red circle?"])))
    context = splice(model.embed, [prompt], [[]], side="left", pad_id=model.pad_id, max_length=64)
    inner: Any = model.model
    ids = inner.generate(torch.tensor([prompt.ids]), max_new_tokens=9, eos_token_id=model.ends(), pad_token_id=0)
    expected = model.tokenizer.decode(ids[0, len(prompt.ids) :], skip_special_tokens=True)
    assert model.generate(context, GenerationOptions(max_new_tokens=9)) == [str(expected).strip()]


@pytest.mark.parametrize(
    "wrong",
    [{"beams": 2, "temperature": 1.0}, {"top_p": 0.0}, {"max_new_tokens": 0}, {"temperature": -1.0}, {"beam": 2}],
)
def test_options_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GenerationOptions(**wrong)
