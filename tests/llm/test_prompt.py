"""Prompts against what transformers makes of the same conversation: its chat templates, assistant masks, processors."""

import pickle
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from PIL import Image
from tokenizers import processors
from transformers import AutoProcessor, BertTokenizerLegacy, TokenizersBackend

from mmbridge.data.sample import Medium, Message, Sample, conversation
from mmbridge.errors import DataError, RecipeError
from mmbridge.llm.config import LLMConfig
from mmbridge.llm.prompt import PLACEHOLDERS, Prompter
from mmbridge.llm.templates import TemplateName
from tests.tiny import CHATML, CHATML_MARKED, tiny_llava, tiny_llm, tiny_tokenizer

IMAGE = Medium("image", b"")
AUDIO = Medium("audio", b"")
STYLES: tuple[Literal["metaspace", "bytes"], ...] = ("metaspace", "bytes")

TALK = conversation(
    ("user", ["Is there a  red circle?\n"]),
    ("assistant", ["No, it is blüe — 红色 🙂"]),
    ("user", ["And the square?"]),
    ("assistant", [" It is small.\n\nVery."]),
)

QWEN3_LIKE = (  # an empty thought in the last answer, none in those before; turned off, it is in the prompt
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message.content.split('</think>')[-1].lstrip('\n') + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
PHI3_LIKE = (  # something behind the last turn that is behind no other
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% else %}{{ eos_token }}{% endif %}"
)
R1_LIKE = (  # opens a thought that the answers it writes do not have
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content.split('</think>')[-1] "
    "+ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
GPT_OSS_LIKE = (  # ends the last turn with another token than those before
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content }}"
    "{{ eos_token if loop.last and message.role == 'assistant' else '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA_LIKE = (  # no system message, other names, a bos token, trimmed content, whitespace of its own in front
    "\n  {{ bos_token }}\n  {% if messages[0].role == 'system' %}\n  {{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}{{ '<|im_start|>' + ('model' if message.role == 'assistant' "
    "else message.role) + '\n' + message.content | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}"
)


def strings(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": "".join(map(str, message.content))} for message in messages]


def decoded(prompter: Prompter, ids: tuple[int, ...], supervised: tuple[bool, ...]) -> str:
    kept = [token for token, said in zip(ids, supervised, strict=True) if said]
    return str(prompter.tokenizer.decode(kept))


@pytest.mark.parametrize("style", STYLES)
def test_ids_and_labels_are_those_of_the_marked_template(style: Literal["metaspace", "bytes"], tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(tmp_path, style, CHATML_MARKED)
    reference: Any = tokenizer.apply_chat_template(strings(TALK), return_assistant_tokens_mask=True)
    prompt = Prompter(tokenizer).training(Sample("a", TALK))
    assert list(prompt.ids) == reference["input_ids"]
    assert list(map(int, prompt.supervised)) == reference["assistant_masks"]
    assert sum(prompt.supervised) > 10
    asked: Any = tokenizer.apply_chat_template(strings(TALK[:3]), add_generation_prompt=True)
    assert list(Prompter(tokenizer).generation(TALK[:3]).ids) == asked["input_ids"]


@pytest.mark.parametrize("style", STYLES)
def test_without_marks_the_same_tokens_are_supervised(style: Literal["metaspace", "bytes"], tmp_path: Path) -> None:
    marked = Prompter(tiny_tokenizer(tmp_path, style, CHATML_MARKED)).training(Sample("a", TALK))
    bare = Prompter(tiny_tokenizer(tmp_path, style, CHATML)).training(Sample("a", TALK))
    assert bare == marked


@pytest.mark.parametrize("template", [CHATML, CHATML_MARKED])
def test_offsets_trimmed_of_white_space_cost_no_token(template: str, tmp_path: Path) -> None:
    """GPT-2's and Llama-3's tokenizers report " a" as "a", and a space of its own as nothing."""
    talk = conversation(("user", ["How many?"]), ("assistant", ["  Two   stars.  "]))
    tokenizer = tiny_tokenizer(tmp_path, "bytes", template)
    expected = Prompter(tokenizer).training(Sample("a", talk))
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    assert any(start == stop for start, stop in tokenizer("Two   stars", return_offsets_mapping=True)["offset_mapping"])
    assert Prompter(tokenizer).training(Sample("a", talk)) == expected


@pytest.mark.parametrize("template", [CHATML, CHATML_MARKED, QWEN3_LIKE, PHI3_LIKE, GEMMA_LIKE])
@pytest.mark.parametrize("style", STYLES)
def test_text_is_that_of_the_model_s_own_template(
    template: str, style: Literal["metaspace", "bytes"], tmp_path: Path
) -> None:
    tokenizer = tiny_tokenizer(tmp_path, style, template)
    render: Any = tokenizer.apply_chat_template
    prompter = Prompter(tokenizer)
    prompt = prompter.training(Sample("a", TALK))
    assert prompt.text == render(strings(TALK), tokenize=False)
    assert list(prompt.ids) == render(strings(TALK))["input_ids"]
    asked = {"add_generation_prompt": True, "enable_thinking": False}
    assert prompter.generation(TALK[:1]).text == render(strings(TALK[:1]), tokenize=False, **asked)
    spoken = [message.content[0] for message in TALK if message.role == "assistant"]
    said = decoded(prompter, prompt.ids, prompt.supervised)
    expected = "".join(f"{str(part).strip() if template == GEMMA_LIKE else part}<|im_end|>" for part in spoken)
    assert said.lstrip() == expected.lstrip()
    assert prompter.stop_id == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_a_thought_opened_for_the_model_is_left_out(tmp_path: Path) -> None:
    prompter = Prompter(tiny_tokenizer(tmp_path, template=R1_LIKE))
    prompt, asked = prompter.training(Sample("a", TALK)), prompter.generation(TALK[:3])
    assert asked.text.endswith("assistant\n")
    assert prompt.ids[: len(asked.ids)] == asked.ids
    assert decoded(prompter, prompt.ids, prompt.supervised).count("<|im_end|>") == 2


def test_an_answer_ends_with_its_own_turn_s_token(tmp_path: Path) -> None:
    prompter = Prompter(tiny_tokenizer(tmp_path, template=GPT_OSS_LIKE))
    prompt = prompter.training(Sample("a", TALK))
    said = decoded(prompter, prompt.ids, prompt.supervised)
    assert said == "No, it is blüe — 红色 🙂<|im_end|> It is small.\n\nVery.</s>"
    held = conversation(("user", ["Hi"]), ("assistant", ["a <|im_end|> b"]))
    with pytest.raises(DataError, match=r"the answer holds '<\|im_end\|>'"):
        prompter.training(Sample("b", held))


@pytest.mark.parametrize("style", STYLES)
def test_media_stand_anywhere_and_are_never_said(style: Literal["metaspace", "bytes"], tmp_path: Path) -> None:
    prompter = Prompter(tiny_tokenizer(tmp_path, style, CHATML), separator="\n")
    messages = conversation(
        ("user", [IMAGE, "What", " is it?", AUDIO, AUDIO, "And", IMAGE]), ("assistant", ["A star", IMAGE, "so."])
    )
    prompt = prompter.training(Sample("a", messages))
    assert [each.medium for each in prompt.placeholders] == ["image", "audio", "audio", "image", "image"]
    said = "<|im_start|>user\n<image>\nWhat is it?<audio><audio>\nAnd<image><|im_end|>\n<|im_start|>assistant\n"
    assert prompt.text == said + "A star<image>\nso.<|im_end|>\n"
    names = [prompter.tokenizer.convert_ids_to_tokens(prompt.ids[each.position]) for each in prompt.placeholders]
    assert names == ["<image>", "<audio>", "<audio>", "<image>", "<image>"]
    assert not any(prompt.supervised[each.position] for each in prompt.placeholders)
    assert decoded(prompter, prompt.ids, prompt.supervised).replace(" ", "") == "Astar\nso.<|im_end|>"


def test_a_separator_that_is_there_already_is_not_doubled(tmp_path: Path) -> None:
    prompter = Prompter(tiny_tokenizer(tmp_path))
    one = prompter.generation(conversation(("user", [IMAGE, "What?"])))
    other = prompter.generation(conversation(("user", [IMAGE, "\nWhat?"])))
    assert one == other
    assert "<image>What" in Prompter(tiny_tokenizer(tmp_path), separator="").generation(one_image("What?")).text


def one_image(question: str) -> tuple[Message, ...]:
    return conversation(("user", [IMAGE, question]))


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_tokens_are_the_llava_processor_s(family: str, tmp_path: Path) -> None:
    folder = tiny_llava(tmp_path, "clip", family)
    auto: Any = AutoProcessor
    prompter = LLMConfig(path=str(folder)).build().prompter
    processor = auto.from_pretrained(folder)
    picture = Image.new("RGB", (32, 32))
    talk = conversation(
        ("user", [IMAGE, IMAGE, "Is there a red circle?"]),
        ("assistant", ["No, a yellow star."]),
        ("user", ["And now?", IMAGE]),
        ("assistant", ["The same."]),
    )
    parts = [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": picture}
                for part in message.content
            ],
        }
        for message in talk
    ]
    tokenise = {"tokenize": True, "return_dict": True}

    def collapsed(ids: list[int]) -> list[int]:
        """The processor's ids with the 16 image tokens of each image as one."""
        image, kept = processor.image_token_id, list[int]()
        while ids:
            kept.append(ids[0])
            ids = ids[16 if ids[:16] == [image] * 16 else 1 :]
        return kept

    reference = processor.apply_chat_template(parts, **tokenise)
    prompt = prompter.training(Sample("a", talk))
    assert list(prompt.ids) == collapsed(reference["input_ids"][0])
    assert prompt.ids[0] == prompter.tokenizer.bos_token_id or family == "qwen2"
    assert len(prompt.placeholders) == 3
    reference = processor.apply_chat_template(parts[:3], add_generation_prompt=True, **tokenise)
    assert list(prompter.generation(talk[:3]).ids) == collapsed(reference["input_ids"][0])
    end = prompter.tokenizer.eos_token
    said = decoded(prompter, prompt.ids, prompt.supervised)
    assert said.replace(" ", "") == f"No,ayellowstar.{end}Thesame.{end}"


EXPECTED: dict[TemplateName, tuple[str, str]] = {
    "plain": ("<image>{%a red circle\n%}", "<image>"),
    "caption": ("<image>A picture of{% a red circle</s>%}", "<image>A picture of"),
    "qa": ("<image>Question: What is it? Answer:{% a red circle</s>%}", "<image>Question: What is it? Answer:"),
    "vicuna_v1": (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: <image>\nWhat is it? ASSISTANT:"
        "{% a red circle</s>%}",
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: <image>\nWhat is it? ASSISTANT:",
    ),
    "minigpt4": (
        "###Human: <Img><image></Img> What is it? ###Assistant:{% a red circle###%}",
        "###Human: <Img><image></Img> What is it? ###Assistant:",
    ),
    "minigpt4_llama2": (
        "[INST] <Img><image></Img> What is it? [/INST]{% a red circle</s>%}",
        "[INST] <Img><image></Img> What is it? [/INST]",
    ),
    "instructblip": ("<image>What is it?{% a red circle</s>%}", "<image>What is it?"),
    "xllm": (
        "<Image><image></Image>问：What is it?\n答：{%a red circle</s>%}",
        "<Image><image></Image>问：What is it?\n答：",
    ),
}
STOPS = {"plain": "\n", "minigpt4": "###"}
"""The text that ends a turn, in templates that end it with no token."""


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("style", STYLES)
def test_named_templates(name: TemplateName, style: Literal["metaspace", "bytes"], tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(tmp_path, style, template=None)
    prompter = Prompter(tokenizer, name)
    talk = conversation(("user", [IMAGE, "What is it?"]), ("assistant", ["a red circle"]))
    prompt, asked = prompter.training(Sample("a", talk)), prompter.generation(talk[:1])
    whole, opening = (text.replace("</s>", tokenizer.eos_token or "") for text in EXPECTED[name])
    assert prompt.text == whole.replace("{%", "").replace("%}", "")
    assert asked.text == opening
    assert prompt.ids[: len(asked.ids)] == asked.ids  # generation continues exactly what training has seen
    assert prompt.supervised == (False,) * len(asked.ids) + (True,) * (len(prompt.ids) - len(asked.ids))
    assert prompt.ids[0] == tokenizer.bos_token_id or style == "bytes"  # as the tokenizer does in pretraining
    assert (prompter.stop_id, prompter.stop_text) == (
        (None, STOPS[name]) if name in STOPS else (tokenizer.eos_token_id, None)
    )


def test_vicuna_s_second_turn_follows_at_once(tmp_path: Path) -> None:
    talk = conversation(
        ("user", ["One?"]), ("assistant", ["Yes."]), ("user", ["Two?", IMAGE]), ("assistant", [" No. "])
    )
    prompt = Prompter(tiny_tokenizer(tmp_path), "vicuna_v1", system="Be brief.").training(Sample("a", talk))
    assert prompt.text == "Be brief. USER: One? ASSISTANT: Yes.</s>USER: Two?<image> ASSISTANT: No.</s>"


def test_minigpt4_s_second_turn_begins_where_the_first_ended(tmp_path: Path) -> None:
    talk = conversation(
        ("user", ["One?"]), ("assistant", ["Yes."]), ("user", ["Two?", IMAGE]), ("assistant", [" No. "])
    )
    sample = Sample("a", talk)
    prompt = Prompter(tiny_tokenizer(tmp_path), "minigpt4", system="Be brief.").training(sample)
    turns = "###Human: One? ###Assistant: Yes.###Human: Two?<Img><image></Img> ###Assistant: No.###"
    assert prompt.text == f"Be brief.{turns}"
    llama = Prompter(tiny_tokenizer(tmp_path), "minigpt4_llama2", system="Be brief.").training(sample)
    turns = "[INST] One? [/INST] Yes.</s>[INST] Two?<Img><image></Img> [/INST] No.</s>"
    assert llama.text == f"Be brief. {turns}"


def test_media_stand_in_front_of_what_is_asked(tmp_path: Path) -> None:
    talk = conversation(
        ("user", ["One?"]), ("assistant", ["Yes."]), ("user", ["Two? ", IMAGE, AUDIO]), ("assistant", [" No. "])
    )
    sample = Sample("a", talk)
    prompt = Prompter(tiny_tokenizer(tmp_path), "instructblip", system="Be brief.").training(sample)
    assert prompt.text == "Be brief. One? Yes.</s><image><audio>Two? No.</s>"
    prompt = Prompter(tiny_tokenizer(tmp_path), "xllm", system="Be brief.").training(sample)
    media = "<Image><image></Image><Speech><audio></Speech>"
    assert prompt.text == f"Be brief.\n问：One?\n答：Yes.</s>{media}问：Two?\n答：No.</s>"


def test_a_system_message_of_the_sample_goes_first(tmp_path: Path) -> None:
    prompter = Prompter(tiny_tokenizer(tmp_path), system="Be brief.")
    assert prompter.generation(TALK[:1]).text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user")
    own = conversation(("system", ["Be long."]), ("user", ["Hi"]))
    assert "brief" not in prompter.generation(own).text


def test_placeholders_are_tokens_but_not_embeddings(tmp_path: Path) -> None:
    llm = LLMConfig(path=str(tiny_llm(tmp_path))).build()
    rows = len(llm.embed(torch.arange(llm.model.config.vocab_size)))
    assert rows == llm.model.config.vocab_size == len(llm.tokenizer) - len(PLACEHOLDERS)
    with pytest.raises(IndexError):
        llm.embed(torch.tensor([rows]))
    assert llm.tokenizer.convert_tokens_to_ids("<image>") == rows


def test_a_placeholder_the_tokenizer_has_is_kept(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(tmp_path)
    tokenizer.add_tokens(["<audio>"])
    number = tokenizer.convert_tokens_to_ids("<audio>")
    prompt = Prompter(tokenizer).generation(conversation(("user", ["Hear: ", AUDIO])))
    assert [prompt.ids[each.position] for each in prompt.placeholders] == [number]


def test_a_prompter_travels_to_workers(tmp_path: Path) -> None:
    prompter = Prompter(tiny_tokenizer(tmp_path), system="Be brief.")
    sample = Sample("a", conversation(("user", [IMAGE, "Hi"]), ("assistant", ["Ho"])))
    assert pickle.loads(pickle.dumps(prompter)).training(sample) == prompter.training(sample)


def test_the_template_in_use_can_be_given_to_a_processor(tmp_path: Path) -> None:
    """It reads content in parts, so another program renders the same text with it."""
    for name in (None, *EXPECTED):
        tokenizer = tiny_tokenizer(tmp_path)
        prompter = Prompter(tokenizer, name)
        again = tiny_tokenizer(tmp_path, template=prompter.chat_template)
        content = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
        render: Any = again.apply_chat_template
        text = render([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)
        assert text == prompter.generation(one_image("What is it?")).text


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ((), "expected messages, found none"),
        (conversation(("user", ["What?"])), "found no supervised token"),
        (conversation(("user", ["What is <image>?"]), ("assistant", ["A star"])), "contains '<image>'"),
        (conversation(("user", ["What?"]), ("assistant", ["A <video> star"])), "contains '<video>'"),
    ],
)
def test_samples_that_cannot_be_learnt_from(messages: tuple[Message, ...], problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        Prompter(tiny_tokenizer(tmp_path)).training(Sample("train/17", messages))
    assert "train/17" in str(caught.value)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_conversations_a_template_refuses_or_rewrites(tmp_path: Path) -> None:
    prompter = Prompter(tiny_tokenizer(tmp_path, template=GEMMA_LIKE))
    with pytest.raises(DataError, match=r"sample 7: .*System role not supported"):
        prompter.generation(conversation(("system", ["Be brief."]), ("user", ["Hi"])), "7")
    with pytest.raises(DataError, match=r"sample 8: expected a last message of the user"):
        prompter.generation(TALK, "8")
    forgets = CHATML.replace("messages %}", "messages[-2:] %}")
    with pytest.raises(DataError, match=r"sample 9: .*rewrites earlier turns"):
        Prompter(tiny_tokenizer(tmp_path, template=forgets)).training(Sample("9", TALK))
    drops = CHATML.replace("message['content']", "message['content'].replace('<image>', '')")
    with pytest.raises(DataError, match=r"sample 3: expected placeholders for media \[image\], found \[none\]"):
        Prompter(tiny_tokenizer(tmp_path, template=drops)).generation(one_image("Hi"), "3")


@pytest.mark.parametrize(
    ("template", "system", "problem"),
    [
        (None, None, "no chat template of its own"),
        ("{{ 'hello' }}", None, "does not write what the assistant says"),
        ("{{ messages | nonsense }}", None, "refuses it"),
        ("{% for message in messages %}{{ message.content + '\n' }}{% endfor %}", None, "with no token"),
        (
            CHATML.replace("{% endfor %}", "{% endfor %}{% generation %}!{% endgeneration %}"),
            None,
            "marks are not around",
        ),
        (GEMMA_LIKE, "Be brief.", "System role not supported"),
        (CHATML, "Look at <image>.", "contains '<image>'"),
    ],
)
def test_templates_that_cannot_be_used(template: str | None, system: str | None, problem: str, tmp_path: Path) -> None:
    with pytest.raises((RecipeError, DataError)) as caught:
        Prompter(tiny_tokenizer(tmp_path, template=template), system=system)
    assert problem in str(caught.value)
    assert "llm." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_slow_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    slow: Any = BertTokenizerLegacy
    with pytest.raises(RecipeError, match="expected a fast tokenizer, found BertTokenizerLegacy"):
        Prompter(slow(str(tmp_path / "vocab.txt")))


def test_a_template_that_ends_no_turn_warns_when_trained_on(tmp_path: Path) -> None:
    endless = CHATML_MARKED.replace("message['content'] + '<|im_end|>' }}", "message['content'] + ' ' }}")
    prompter = Prompter(tiny_tokenizer(tmp_path, template=endless))
    with pytest.warns(UserWarning, match="nothing learns to stop"):
        prompter.training(Sample("a", TALK))


def test_fast_tokenizers_are_what_the_library_gives(tmp_path: Path) -> None:
    assert isinstance(LLMConfig(path=str(tiny_llm(tmp_path))).build().tokenizer, TokenizersBackend)
