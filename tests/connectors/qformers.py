"""Tiny Q-Formers, and checkpoints of transformers that they start from, every number of which is drawn."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
)

from mmbridge.connectors.config import QFormerConfig
from mmbridge.connectors.qformer import QFormer
from mmbridge.encoders.base import EncoderFacts, Grid

QUERIES, WIDTH, WORDS, POSITIONS, FEATURES = 5, 32, 50, 20, 24
SMALL: dict[str, Any] = {
    "queries": QUERIES,
    "width": WIDTH,
    "layers": 4,
    "heads": 4,
    "feed_forward": 48,
    "text": {"vocabulary": WORDS, "positions": POSITIONS, "length": POSITIONS},
}
KEY = "connectors.image.resampler"

_BERT: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": WORDS,
    "max_position_embeddings": POSITIONS,
}


def qformer(width: int = FEATURES, **changes: Any) -> QFormer:
    """For features of 4×4 tokens; without dropout unless ``changes`` say so. Drawn wider than by default."""
    config = QFormerConfig.model_validate(SMALL | {"dropout": 0.0} | changes)
    made = config.build(EncoderFacts(width, Grid(1, 4, 4)), key=KEY)
    assert isinstance(made, QFormer)
    shake(made)
    made.initialise()
    return made


def shake(model: nn.Module) -> None:
    """Moves every parameter off what it starts at, norms and biases too, the same way every time."""
    draw = torch.Generator().manual_seed(0)
    for name, each in model.named_parameters():
        nn.init.normal_(each, float(name.endswith("orm.weight")), 0.2, generator=draw)


def blip2(folder: Path, features: int = FEATURES, *, text: bool = False, **changes: Any) -> Any:
    """BLIP-2: the one that generates, or the one for retrieval, which has the text branch."""
    config = Blip2Config(**_whole(features, use_qformer_text_input=text, **changes))
    return _saved((Blip2ForImageTextRetrieval if text else Blip2ForConditionalGeneration)(config), folder)


def instructblip(folder: Path, *, llm: Any = None, **changes: Any) -> Any:
    """Around this causal LLM of transformers; else around a tiny OPT."""
    whole = _whole(FEATURES, **changes)
    if llm is None:
        return _saved(InstructBlipForConditionalGeneration(InstructBlipConfig(**whole)), folder)
    whole["text_config"] = llm.config.to_dict()
    whole["vision_config"]["layer_norm_eps"] = 1e-5  # of the norm of features in the released code, and here
    model: Any = InstructBlipForConditionalGeneration(InstructBlipConfig(**whole))
    shake(model)
    model.language_model.load_state_dict(llm.state_dict())
    model.save_pretrained(folder)
    return model.eval()


def bert(folder: Path, **changes: Any) -> Any:
    """With the embeddings of segments at zero, as BLIP-2 leaves them out."""
    model: Any = BertModel(BertConfig(**_BERT | changes))
    shake(model)
    nn.init.zeros_(model.embeddings.token_type_embeddings.weight)
    model.save_pretrained(folder)
    return model.eval()


def _whole(features: int, **changes: Any) -> dict[str, Any]:
    tower = {"hidden_size": features, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    llm = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 16, "vocab_size": 50}
    return {
        "vision_config": tower | {"image_size": 28, "patch_size": 14},
        "qformer_config": _BERT | {"encoder_hidden_size": features} | changes,
        "text_config": llm | {"model_type": "opt", "max_position_embeddings": 20, "word_embed_proj_dim": 16},
        "num_query_tokens": QUERIES,
        "image_text_hidden_size": 8,
    }


def _saved(model: Any, folder: Path) -> Any:
    shake(model)
    model.save_pretrained(folder)
    return model.eval()


def text(*lengths: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Ids of texts of these lengths, padded with other words behind, and what of them is real."""
    ids = torch.randint(1, WORDS, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(seed))
    return ids, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def pictures(*lengths: int, width: int = FEATURES, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features of these many tokens, padded with others behind, and what of them is real."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(len(lengths), max(lengths), width, generator=draw), text(*lengths)[1]
