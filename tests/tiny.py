"""Tiny random models in transformers' own folder format, built in milliseconds and shared by all tests.

Every builder writes a folder and returns it. Models are seeded, so two calls give the same weights; sizes can be
changed by keyword with the names of the family's own config.
"""

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    GPT2Tokenizer,
    LlamaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    TokenizersBackend,
)
from transformers.utils import logging

logging.disable_progress_bar()  # type: ignore[no-untyped-call]

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "phi", "opt", "gpt2")

CORPUS = (
    "A picture of a large red circle above a small blue square.",
    "Question: what colour is the circle? Answer: red",
    "What do you see? Describe the image in one sentence.",
    "USER: Is there a green triangle? ASSISTANT: No, there is a yellow star.",
    "user\nHow many objects are there?\nassistant\nThere are two.\n",
    "the quick brown fox jumps over the lazy dog 0 1 2 3 4 5 6 7 8 9",
)

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML as Qwen2 writes it: no generation markers."""

CHATML_MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The same with ``{% generation %}`` around what the assistant says."""


LLAVA_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'USER: ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{{ ' ' }}"
    "{% else %}{{ 'ASSISTANT:' }}{% generation %}"
    "{% for part in message['content'] %}{{ ' ' + part['text'] }}{% endfor %}{{ '</s>' }}{% endgeneration %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""A template that reads content in parts and places the images itself, as LLaVA processors' do; no bos token."""


def tiny_tokenizer(
    folder: Path | str,
    style: Literal["metaspace", "bytes"] = "metaspace",
    template: str | None = CHATML_MARKED,
    pad: bool = True,
    vocab_size: int = 480,
) -> TokenizersBackend:
    """Train, save and return a tokenizer of about ``vocab_size`` tokens.

    ``metaspace`` is a ``LlamaTokenizer``: BPE with byte fallback, ``<unk> <s> </s>``, words that begin with "▁", and
    a ``<s>`` in front of a text encoded with special tokens. ``bytes`` is a ``GPT2Tokenizer``: byte-level BPE with
    ``<|endoftext|>`` as bos and eos. Both know ``<|im_start|>`` and ``<|im_end|>``; only with ``pad`` a ``<pad>``.
    """
    specials = ["<unk>", "<s>", "</s>"] if style == "metaspace" else ["<|endoftext|>"]
    tokenizer = Tokenizer(models.BPE())
    trainer: dict[str, Any] = {"vocab_size": vocab_size, "show_progress": False}
    if style == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
        specials += [f"<0x{byte:02X}>" for byte in range(256)]
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(special_tokens=specials, **trainer))
    learnt = json.loads(tokenizer.to_str())["model"]
    named: dict[str, Any] = {"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]} | (
        {"pad_token": "<pad>"} if pad else {}
    )
    if style == "metaspace":
        named["add_bos_token"] = True
    kind: type[TokenizersBackend] = LlamaTokenizer if style == "metaspace" else GPT2Tokenizer
    merges: Any = [tuple(merge) for merge in learnt["merges"]]
    made = kind(vocab=learnt["vocab"], merges=merges, chat_template=template, **named)
    made.save_pretrained(folder)
    return made


def tiny_llm(
    folder: Path | str,
    family: str = "llama",
    *,
    tokenizer: dict[str, Any] | None = None,
    seed: int = 0,
    **overrides: Any,
) -> Path:
    """A random causal LM of a family in ``FAMILIES`` with its tokenizer; ``overrides`` go to the family's config.

    About 0.1 M parameters: two layers of width 32. ``tokenizer`` holds keywords for ``tiny_tokenizer``. Weights are
    drawn wider than the families' own so that logits differ visibly; OPT's word embedding is narrower than its hidden
    state (as in opt-350m), GPT-2 has no pad token, and Gemma-2 has its soft caps and a sliding window of 8.
    """
    folder = Path(folder)
    bytes_level = family in ("qwen2", "qwen3", "phi", "opt", "gpt2")
    words = tiny_tokenizer(
        folder, **({"style": "bytes" if bytes_level else "metaspace", "pad": family != "gpt2"} | (tokenizer or {}))
    )
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 256}
    feed = {"intermediate_size": 48}
    grouped = {"num_key_value_heads": 2}
    own: dict[str, dict[str, Any]] = {
        "llama": sizes | feed | grouped,
        "qwen2": sizes | feed | grouped,
        "qwen3": sizes | feed | grouped | {"head_dim": 8},
        "mistral": sizes | feed | grouped | {"sliding_window": None},
        "gemma": sizes | feed | grouped | {"head_dim": 8},
        "gemma2": sizes | feed | grouped | {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8},
        "phi": sizes | feed | {"partial_rotary_factor": 0.5},
        "opt": sizes | {"ffn_dim": 48, "word_embed_proj_dim": 24, "do_layer_norm_before": False},
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    }
    ids = {name: getattr(words, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    scale = {} if family == "opt" else {"initializer_range": 0.2}
    config = AutoConfig.for_model(family, **({"vocab_size": len(words)} | ids | own[family] | scale | overrides))
    return _save(AutoModelForCausalLM.from_config, config, folder, seed)


def tiny_clip(folder: Path | str, *, image_size: int = 32, patch_size: int = 8, seed: int = 0, **vision: Any) -> Path:
    """A random ``CLIPModel`` (both towers) with image processor and tokenizer; ``vision`` goes to the vision config."""
    folder = Path(folder)
    words = tiny_tokenizer(folder, style="bytes", template=None)
    tower = _TOWER | {"image_size": image_size, "patch_size": patch_size, "projection_dim": 24} | vision
    text = _TOWER | {"vocab_size": len(words), "max_position_embeddings": 32, "projection_dim": 24}
    text |= {name: getattr(words, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = CLIPConfig(text_config=text, vision_config=tower, projection_dim=24)
    crop = {"height": image_size, "width": image_size}
    CLIPImageProcessor(size={"shortest_edge": image_size}, crop_size=crop).save_pretrained(folder)
    return _save(CLIPModel, config, folder, seed)


def tiny_siglip(folder: Path | str, *, image_size: int = 32, patch_size: int = 8, seed: int = 0, **vision: Any) -> Path:
    """A random ``SiglipModel`` (both towers) with its image processor; ``vision`` goes to the vision config."""
    folder = Path(folder)
    tower = _TOWER | {"image_size": image_size, "patch_size": patch_size} | vision
    text = _TOWER | {"vocab_size": 64, "max_position_embeddings": 16, "projection_size": tower["hidden_size"]}
    text |= {"bos_token_id": 1, "eos_token_id": 2}
    config = SiglipConfig(text_config=text, vision_config=tower)
    SiglipImageProcessor(size={"height": image_size, "width": image_size}).save_pretrained(folder)
    return _save(SiglipModel, config, folder, seed)


def tiny_llava(
    folder: Path | str,
    vision: Literal["clip", "siglip"] = "clip",
    family: str = "llama",
    *,
    tokenizer: dict[str, Any] | None = None,
    seed: int = 0,
    **overrides: Any,
) -> Path:
    """A random ``LlavaForConditionalGeneration`` with its processor; ``overrides`` go to the ``LlavaConfig``.

    The tokenizer has ``<image>``, the text model a row of embeddings for it, as published checkpoints do.
    """
    folder = Path(folder)
    with TemporaryDirectory() as parts:
        tower = AutoConfig.from_pretrained((tiny_clip if vision == "clip" else tiny_siglip)(Path(parts) / "tower"))
        images = (CLIPImageProcessor if vision == "clip" else SiglipImageProcessor).from_pretrained(
            Path(parts) / "tower"
        )
        llm = tiny_llm(Path(parts) / "llm", family, tokenizer=tokenizer)
        words = AutoTokenizer.from_pretrained(llm)
        text = AutoConfig.from_pretrained(llm)
    template = LLAVA_TEMPLATE.replace("</s>", words.eos_token)
    words.add_tokens([AddedToken("<image>", special=True, normalized=False)], special_tokens=True)
    text.vocab_size = len(words)
    config = LlavaConfig(
        vision_config=tower.vision_config,
        text_config=text,
        image_token_index=len(words) - 1,
        **({"vision_feature_select_strategy": "default" if vision == "clip" else "full"} | overrides),
    )
    processor: Any = LlavaProcessor
    processor(
        image_processor=images,
        tokenizer=words,
        patch_size=tower.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1 if vision == "clip" else 0,
        chat_template=template,
    ).save_pretrained(folder)
    return _save(LlavaForConditionalGeneration, config, folder, seed)


_TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
    "initializer_factor": 5.0,
}


def _save(build: Callable[[Any], PreTrainedModel], config: PreTrainedConfig, folder: Path, seed: int) -> Path:
    """Build with fixed seed, leaving the global generator as it was; norms and biases are moved off their defaults."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(config)
        with torch.no_grad():
            for name, tensor in model.named_parameters():
                if tensor.ndim == 1:
                    tensor.add_(torch.randn_like(tensor), alpha=0.1)
                elif config.model_type == "opt" and "layer_norm" not in name:
                    tensor.mul_(5.0)
    model.save_pretrained(folder)
    return folder
