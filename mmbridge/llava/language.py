"""The language side of an exported bridge: the decoder under LLaVA's names, tokenizer, chat template, ends of text.

transformers embeds the placeholder before it replaces it, so it needs a row in the embedding. A model without a spare
row gets one, in the output head too: the mean of all others, so that its logit is the mean of all logits and the
token is never the likeliest.
"""

import json
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from mmbridge.data.sample import Medium, Message
from mmbridge.errors import RecipeError
from mmbridge.frozen import locate, quietly, reading
from mmbridge.llava.families import LLMS, supported
from mmbridge.llm.model import LanguageModel
from mmbridge.llm.prompt import PLACEHOLDERS

IMAGE = PLACEHOLDERS["image"]


@dataclass(frozen=True, slots=True)
class LanguagePart:
    """What a LLaVA folder needs of an LLM; ``image_id`` is the placeholder's token."""

    config: PretrainedConfig
    state: dict[str, Tensor]
    tokenizer: PreTrainedTokenizerBase
    template: str
    generation: GenerationConfig
    image_id: int


def language_part(llm: LanguageModel) -> LanguagePart:
    """The LLM with LoRA merged, and the tokenizer of its own folder with the image placeholder added.

    Raises:
        RecipeError: transformers' LLaVA class would compute or tokenise something else.
    """
    config = deepcopy(llm.model.config)
    if config.model_type not in LLMS:
        raise RecipeError(
            "llm.path", f"LLaVA folders are written with an LLM of {supported(LLMS)}, found {config.model_type}"
        )
    if getattr(config, "final_logit_softcapping", None):
        problem = "transformers' LLaVA class leaves out the soft cap this LLM puts on its logits"
        raise RecipeError("llm.path", problem)
    tokenizer = _tokenizer(llm)
    image_id = int(tokenizer.convert_tokens_to_ids(IMAGE))
    state = _state(llm, rows=image_id + 1)
    config.vocab_size = len(state["lm_head.weight"])
    template = _template(llm)
    tokenizer.chat_template = template
    _agree(llm, tokenizer)
    return LanguagePart(config, state, tokenizer, template, _generation(llm), image_id)


def _tokenizer(llm: LanguageModel) -> Any:
    folder = locate(llm.config.path, llm.config.revision)
    with reading(folder, "transformers"), quietly():
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.convert_tokens_to_ids(IMAGE) in (None, tokenizer.unk_token_id):
        tokenizer.add_tokens([IMAGE], special_tokens=True)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _state(llm: LanguageModel, rows: int) -> dict[str, Tensor]:
    """Under the names of LLaVA's class, with at least so many rows of vocabulary."""
    state = _merged(llm)
    bias = state.pop("lm_head.bias", None)
    if bias is not None and bias.any():
        raise RecipeError("llm.path", "transformers' LLaVA class has no bias in its output head, this LLM does")
    grown: dict[int, Tensor] = {}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        table = state[name]
        if len(table) < rows:
            mean = table.float().mean(0, keepdim=True).to(table.dtype)
            # a tied table stays one
            state[name] = grown.setdefault(table.data_ptr(), torch.cat([table, mean.expand(rows - len(table), -1)]))
    return {
        name if name.startswith("lm_head.") else name.replace("model.", "model.language_model.", 1): tensor
        for name, tensor in state.items()
    }


@torch.no_grad()
def _merged(llm: LanguageModel) -> dict[str, Tensor]:
    """The state of the plain model: what LoRA adds is added to the matrices it adapts."""
    model: Any = llm.model
    state = {
        name.replace(".base_layer.", "."): tensor.detach()
        for name, tensor in model.state_dict().items()
        if ".lora_" not in name
    }
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            weight = state[f"{name}.weight"]
            delta: Any = module.get_delta_weight
            state[f"{name}.weight"] = (weight.float() + delta("default").float()).to(weight.dtype)
    return state


def _template(llm: LanguageModel) -> str:
    """The bridge's chat template, with what the bridge gives it besides messages written in front."""
    preamble = ""
    if llm.config.system:
        message = {"role": "system", "content": [{"type": "text", "text": llm.config.system}]}
        preamble += "{%- if messages[0].role != 'system' -%}{%- set messages = [" + json.dumps(message)
        preamble += "] + messages -%}{%- endif -%}\n"
    source = llm.prompter.chat_template
    if "enable_thinking" in source:
        preamble += "{%- set enable_thinking = enable_thinking | default(false) -%}\n"
    return preamble + source


def _agree(llm: LanguageModel, tokenizer: Any) -> None:
    """Makes sure that a LLaVA processor reads conversations as the bridge does.

    A processor lets the tokenizer put its bos token in front unless the text begins with it; where the bridge has
    none, the tokenizer is told to put none.

    Raises:
        RecipeError: they read one differently all the same.
    """
    image = Medium("image", b"", "a probe")
    asked = Message("user", (image, "What is this?"))
    talks = [
        (asked,),
        (Message("user", ("Hello.",)),),
        (asked, Message("assistant", ("A circle.",)), Message("user", ("Is it red?", image))),
    ]
    if any(_read(llm, tokenizer, talk) for talk in talks):
        tokenizer.add_bos_token = False
    for talk in talks:
        if differing := _read(llm, tokenizer, talk):
            raise RecipeError("llm.template", f"a LLaVA processor would read a prompt differently: {differing}")


def _read(llm: LanguageModel, tokenizer: Any, talk: tuple[Message, ...]) -> str:
    """What differs, if anything does, between the bridge's prompt and a processor's."""
    turns = [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": part.kind}
                for part in message.content
            ],
        }
        for message in talk
    ]
    ours = llm.prompter.generation(talk)
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    if text != ours.text:
        return f"{text!r}, not {ours.text!r}"
    opened = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
    ids = tuple(tokenizer(text, add_special_tokens=not opened)["input_ids"])
    return "" if ids == ours.ids else f"as tokens {ids[:8]}…, not {ours.ids[:8]}…"


def _generation(llm: LanguageModel) -> GenerationConfig:
    """The LLM's own, ending where the bridge ends a text; only tokens can be written down, not the newline that ends
    one under the template ``plain``."""
    config = deepcopy(llm.model.generation_config)
    assert config is not None
    own = config.eos_token_id
    ends = {*(own if isinstance(own, list) else [own]), llm.tokenizer.eos_token_id, llm.prompter.stop_id}
    config.eos_token_id = sorted(end for end in ends if end is not None)
    config.pad_token_id = llm.pad_id
    return config
