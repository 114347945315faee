"""From a folder or hub id to a ``LanguageModel``: any decoder-only causal LM that transformers knows, never forked."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from mmbridge.errors import RecipeError
from mmbridge.frozen import freeze, locate, quietly, reading
from mmbridge.llm.config import LLMConfig
from mmbridge.llm.lora import add_lora
from mmbridge.llm.model import LanguageModel
from mmbridge.llm.quantization import make_differentiable, quantization_config
from mmbridge.llm.weight_mask import put_on

# Where a composite checkpoint keeps its language model: as written up to transformers 4 and by 5's own renaming.
_INSIDE = {r"^language_model\.": "", r"^model\.language_model\.": "model."}


def load(config: LLMConfig) -> LanguageModel:
    """Load, freeze, put on the mask and add LoRA if asked.

    Raises:
        RecipeError: see ``LLMConfig.build``.
    """
    folder = locate(config.path, config.revision)
    model = _model(folder, config)
    freeze(model)
    language_model = LanguageModel(model, _tokenizer(folder), config)
    put_on(language_model)
    if config.lora is not None:
        add_lora(model, config.lora)
    return language_model.eval()


def _model(folder: Path, config: LLMConfig) -> PreTrainedModel:
    with reading(folder, "transformers"):
        whole = AutoConfig.from_pretrained(folder)
    text = whole.get_text_config(decoder=True)
    if whole.is_encoder_decoder:
        raise RecipeError(config.path, f"expected a decoder-only model, found {whole.model_type} with an encoder")
    if type(text) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise RecipeError(config.path, f"expected a causal language model, found {whole.model_type}")
    options: dict[str, Any] = {}
    if composite := text is not whole:
        # The head of a composite model is its own: a bare matrix without Phi's bias or Gemma-2's soft cap.
        if getattr(text, "final_logit_softcapping", None):
            text.final_logit_softcapping = None
        text.tie_word_embeddings = text.tie_word_embeddings or whole.tie_word_embeddings
        options = {"config": text, "key_mapping": _INSIDE}
    dtype = getattr(torch, config.dtype)
    options |= {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
    if config.quantization is not None:
        if getattr(whole, "quantization_config", None) or getattr(text, "quantization_config", None):
            problem = f"expected weights to quantise, found weights in {folder} that are so already"
            raise RecipeError("llm.quantization", problem, "set it to null")
        # In main memory, as all that is loaded, and not on transformers' choice of device.
        options |= {"quantization_config": quantization_config(config.quantization, dtype), "device_map": "cpu"}
    auto: Any = AutoModelForCausalLM
    with reading(folder, "transformers"), quietly():
        model, report = auto.from_pretrained(folder, **options)
    bare = {"lm_head.bias"} if composite else set()
    if missing := sorted(set(report["missing_keys"]) - bare):
        problem = f"expected all weights of {type(model).__name__}, found {len(missing)} missing, first {missing[0]}"
        raise RecipeError(config.path, problem)
    if composite and model.lm_head.bias is not None:
        nn.init.zeros_(model.lm_head.bias)
    make_differentiable(model)
    loaded: PreTrainedModel = model
    return loaded


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    with reading(folder, "transformers"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    processors = folder / "chat_template.json"  # where processors kept the template before chat_template.jinja
    if tokenizer.chat_template is None and processors.exists():
        tokenizer.chat_template = json.loads(processors.read_text(encoding="utf-8"))["chat_template"]
    return tokenizer
