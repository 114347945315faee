"""Weights that a Q-Former starts from: those of transformers' BLIP-2 and InstructBLIP, or BERT's.

A BLIP-2 checkpoint has all of them, with a text branch if it is one for retrieval; InstructBLIP's always has one; what
a Q-Former has no use for is left. BERT has the self-attention, the feed-forward, which queries and text both start
from, and the embeddings of text; cross-attention, queries and the norm of features stay as drawn, and of a deeper BERT
the first blocks are taken. Words that a checkpoint has not, as ``[DEC]`` in BERT, and heads stay as drawn as well.

differs from transformers: its BERT adds an embedding of the first segment to every word, which BLIP-2 leaves out.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig

from mmbridge.connectors.bert_blocks import EPSILON
from mmbridge.connectors.config import QFormerConfig
from mmbridge.errors import RecipeError
from mmbridge.frozen import locate, quietly, reading, safetensors_in

_BY_WORD = ("embeddings.words.weight", "heads.bias")

# our names, or their beginnings, and theirs
_ATTENTION = {"out.": "output.dense.", "norm.": "output.LayerNorm."}
_BLIP_BLOCK = {
    **{f"attention.{own}": f"attention.{name}" for own, name in _ATTENTION.items()},
    "attention.": "attention.attention.",
    **{f"cross.{own}": f"crossattention.{name}" for own, name in _ATTENTION.items()},
    "cross.": "crossattention.attention.",
    "query_feed.up.": "intermediate_query.dense.",
    "query_feed.down.": "output_query.dense.",
    "query_feed.norm.": "output_query.LayerNorm.",
    "text_feed.up.": "intermediate.dense.",
    "text_feed.down.": "output.dense.",
    "text_feed.norm.": "output.LayerNorm.",
}
_BLIP_2 = {
    "feature_norm.": "vision_model.post_layernorm.",
    "embeddings.queries": "query_tokens",
    "embeddings.norm.": "qformer.layernorm.",
    "embeddings.words.": "embeddings.word_embeddings.",
    "embeddings.positions.": "embeddings.position_embeddings.",
    "blocks.": "qformer.encoder.layer.",
    "heads.image.": "vision_projection.",
    "heads.text.": "text_projection.",
    "heads.match.": "itm_head.",
}
_INSTRUCTBLIP = _BLIP_2 | {
    "embeddings.norm.": "qformer.embeddings.layernorm.",
    "embeddings.words.": "qformer.embeddings.word_embeddings.",
    "embeddings.positions.": "qformer.embeddings.position_embeddings.",
}
_BERT_BLOCK = {
    **{f"attention.{own}": f"attention.{name}" for own, name in _ATTENTION.items()},
    "attention.": "attention.self.",
    **{f"{feed}.up.": "intermediate.dense." for feed in ("query_feed", "text_feed")},
    **{f"{feed}.down.": "output.dense." for feed in ("query_feed", "text_feed")},
    **{f"{feed}.norm.": "output.LayerNorm." for feed in ("query_feed", "text_feed")},
}
_BERT = {
    "embeddings.norm.": "embeddings.LayerNorm.",
    "embeddings.words.": "embeddings.word_embeddings.",
    "embeddings.positions.": "embeddings.position_embeddings.",
    "blocks.": "encoder.layer.",
    "heads.transform.": "cls.predictions.transform.dense.",
    "heads.norm.": "cls.predictions.transform.LayerNorm.",
    "heads.bias": "cls.predictions.bias",
}
_KNOWN = {
    "blip-2": (_BLIP_2, _BLIP_BLOCK),
    "instructblip": (_INSTRUCTBLIP, _BLIP_BLOCK),
    "bert": (_BERT, _BERT_BLOCK),
}


@torch.no_grad()
def initialise(own: Mapping[str, Tensor], config: QFormerConfig, key: str) -> None:
    """Copies what ``config.init`` names, if it names anything, into a Q-Former's tensors: all of it or nothing.

    Args:
        own: by their names in ``QFormer``.
        config: of the Q-Former.
        key: where it stands in its recipe, for errors.

    Raises:
        RecipeError: no such checkpoint, none in safetensors, one of something else, or of other sizes.
    """
    if config.init is None:
        return
    folder, key = locate(config.init, config.revision), f"{key}.init"
    files = safetensors_in(folder)
    with reading(folder, "transformers"), quietly():
        whole: Any = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if whole.model_type not in _KNOWN:
        problem = f"expected a BLIP-2, InstructBLIP or BERT checkpoint, found one of type {whole.model_type}"
        raise RecipeError(key, problem)
    _check_sizes(getattr(whole, "qformer_config", whole), config, key)
    wanted = {name: theirs for name in own for theirs in _theirs(name, *_KNOWN[whole.model_type])}
    with reading(folder, "safetensors"):
        found = _tensors(files, set(wanted.values()))
    wanted = {name: theirs for name, theirs in wanted.items() if theirs in found or not name.startswith("heads.")}
    fitting = {name: _fitting(name, theirs, own[name], found.get(theirs), key) for name, theirs in wanted.items()}
    for name, tensor in fitting.items():
        own[name][: len(tensor)].copy_(tensor)


def _theirs(name: str, outside: Mapping[str, str], inside: Mapping[str, str]) -> Iterator[str]:
    """A checkpoint's name for a tensor of ours; nothing where it has none by nature."""
    begin = next((each for each in outside if name.startswith(each)), None)
    if begin is None:
        return
    rest = name.removeprefix(begin)
    if begin != "blocks.":
        yield outside[begin] + rest
        return
    index, _, part = rest.partition(".")
    for ours, theirs in inside.items():
        if part.startswith(ours):
            yield f"{outside[begin]}{index}.{theirs}{part.removeprefix(ours)}"
            return


def _check_sizes(theirs: Any, config: QFormerConfig, key: str) -> None:
    """What the shapes of tensors do not say."""
    expected = {"num_attention_heads": config.heads, "hidden_act": "gelu", "layer_norm_eps": EPSILON}
    if hasattr(theirs, "cross_attention_frequency"):
        expected |= {"cross_attention_frequency": config.cross_every, "num_hidden_layers": config.layers}
    for name, value in expected.items():
        if (found := getattr(theirs, name)) != value:
            raise RecipeError(key, f"expected {name} {value}, found {found} in {config.init}")
    if theirs.num_hidden_layers < config.layers:
        problem = f"expected at least {config.layers} layers, found {theirs.num_hidden_layers} in {config.init}"
        raise RecipeError(key, problem)


def _tensors(files: list[Path], names: set[str]) -> dict[str, Tensor]:
    """Those of these names. Old checkpoints of BERT say gamma and beta for a norm's weight and bias."""
    found = {}
    for file in files:
        with safe_open(file, "pt") as stored:
            for name in stored.keys():  # noqa: SIM118 - it is no mapping
                known = name.removeprefix("bert.").replace(".gamma", ".weight").replace(".beta", ".bias")
                if known in names:
                    found[known] = stored.get_tensor(name)
    return found


def _fitting(name: str, theirs: str, own: Tensor, found: Tensor | None, key: str) -> Tensor:
    """A checkpoint's tensor in the shape that ours begins with."""
    if found is None:
        text = name.startswith(("embeddings.words", "embeddings.positions")) or ".text_feed." in name
        fix = "set text to null" if text else ""
        raise RecipeError(key, f"expected a checkpoint with {theirs}, found none", fix)
    found = found[0] if theirs == "query_tokens" else found
    fewer = name in _BY_WORD and len(found) <= len(own)
    if found.shape[fewer:] != own.shape[fewer:]:
        raise RecipeError(key, f"{theirs}: expected shape {tuple(own.shape)}, found {tuple(found.shape)}")
    return found
