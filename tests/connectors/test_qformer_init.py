"""What a Q-Former starts from: which weights go where, what stays as drawn, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmbridge.connectors.config import QFormerConfig
from mmbridge.errors import RecipeError
from tests.connectors.qformers import KEY, SMALL, bert, blip2, instructblip, pictures, qformer, text
from tests.tiny import tiny_clip

FRESH = ("embeddings.queries", "feature_norm.", "cross.")


def test_bert_gives_what_it_has(tmp_path: Path) -> None:
    """Both feed-forwards start as its own; what it has not stays as it was drawn."""
    theirs, ours, drawn = bert(tmp_path), qformer(init=str(tmp_path)).state_dict(), qformer().state_dict()
    for name, tensor in ours.items():
        assert torch.equal(tensor, drawn[name]) == any(each in name for each in FRESH), name
    for index, layer in enumerate(theirs.encoder.layer):
        for feed in ("query_feed", "text_feed"):
            assert torch.equal(ours[f"blocks.{index}.{feed}.up.weight"], layer.intermediate.dense.weight)
            assert torch.equal(ours[f"blocks.{index}.{feed}.down.bias"], layer.output.dense.bias)


def test_old_names_of_bert(tmp_path: Path) -> None:
    """Published BERTs have a prefix, and norms with gamma and beta."""
    bert(tmp_path)
    reference = qformer(init=str(tmp_path)).state_dict()
    state = load_file(tmp_path / "model.safetensors")
    old = {
        "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): each
        for name, each in state.items()
    }
    save_file(old, tmp_path / "model.safetensors")
    for name, tensor in qformer(init=str(tmp_path)).state_dict().items():
        assert torch.equal(tensor, reference[name])


def test_a_deeper_bert_with_fewer_words(tmp_path: Path) -> None:
    """Its first blocks; a word more than it has, as BLIP-2's [DEC], stays as drawn."""
    bert(tmp_path)
    words = {"vocabulary": 52, "positions": 20, "length": 20}
    ours, drawn = qformer(layers=2, text=words, init=str(tmp_path)), qformer(layers=2, text=words)
    whole = qformer(init=str(tmp_path)).state_dict()
    state, fresh = ours.state_dict(), drawn.state_dict()
    assert torch.equal(state["blocks.1.attention.out.weight"], whole["blocks.1.attention.out.weight"])
    assert torch.equal(state["embeddings.words.weight"][:50], whole["embeddings.words.weight"])
    assert torch.equal(state["embeddings.words.weight"][50:], fresh["embeddings.words.weight"][50:])


def test_text_is_left_where_none_is_asked_for(tmp_path: Path) -> None:
    blip2(tmp_path, text=True)
    ours, whole = qformer(text=None, init=str(tmp_path)), qformer(init=str(tmp_path))
    image = pictures(16, 9)
    assert not any("text" in name or "words" in name for name in ours.state_dict())
    one, other = (each.read("queries", each.image(*image)).queries for each in (ours, whole))
    assert one is not None
    assert other is not None
    assert torch.equal(one, other)


def test_half_precision_in_several_files(tmp_path: Path) -> None:
    theirs = blip2(tmp_path / "whole", text=True)
    theirs.half().save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 2
    ours, reference = (qformer(init=str(tmp_path / name)).state_dict() for name in ("parts", "whole"))
    for name, tensor in ours.items():
        assert tensor.dtype is torch.float32
        assert torch.allclose(tensor, reference[name], atol=1e-3)


def line(folder: Path, **changes: Any) -> str:
    """What one is told, after which nothing of the Q-Former has changed."""
    model = qformer()
    model.config = QFormerConfig.model_validate(SMALL | {"init": str(folder)} | changes)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    with pytest.raises(RecipeError) as caught:
        model.initialise()
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    return str(caught.value).replace(str(folder), "FOLDER")


def test_no_text_where_text_is_asked_for(tmp_path: Path) -> None:
    blip2(tmp_path)
    missing = "expected a checkpoint with embeddings.word_embeddings.weight, found none; set text to null"
    assert line(tmp_path) == f"{KEY}.init: {missing}"


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        ({"num_attention_heads": 2}, "expected num_attention_heads 4, found 2 in FOLDER"),
        ({"num_hidden_layers": 3}, "expected num_hidden_layers 4, found 3 in FOLDER"),
        ({"cross_attention_frequency": 1}, "expected cross_attention_frequency 2, found 1 in FOLDER"),
        ({"hidden_act": "relu"}, "expected hidden_act gelu, found relu in FOLDER"),
        ({"vocab_size": 51}, "qformer.embeddings.word_embeddings.weight: expected shape (50, 32), found (51, 32)"),
        (
            {"intermediate_size": 40},
            "qformer.encoder.layer.0.intermediate_query.dense.weight: expected shape (48, 32), found (40, 32)",
        ),
    ],
)
def test_other_sizes(tmp_path: Path, made: dict[str, Any], problem: str) -> None:
    instructblip(tmp_path, **made)
    assert line(tmp_path) == f"{KEY}.init: {problem}"


def test_a_bert_too_shallow(tmp_path: Path) -> None:
    bert(tmp_path, num_hidden_layers=3)
    assert line(tmp_path) == f"{KEY}.init: expected at least 4 layers, found 3 in FOLDER"


def test_other_models_and_none(tmp_path: Path) -> None:
    tiny_clip(tmp_path / "clip")
    expected = f"{KEY}.init: expected a BLIP-2, InstructBLIP or BERT checkpoint, found one of type clip"
    assert line(tmp_path / "clip") == expected
    assert line(tmp_path / "none").startswith("FOLDER: no such folder; give a folder, a hub id")


def test_pickles_and_damaged_files(tmp_path: Path) -> None:
    bert(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    assert line(tmp_path).startswith("FOLDER: safetensors cannot read it")
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    problem = "expected weights in safetensors, found only pytorch_model.bin; pickles are never read"
    assert line(tmp_path) == f"FOLDER: {problem}"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    (tmp_path / "pytorch_model.bin").rename(tmp_path / "model.safetensors")
    assert line(tmp_path).startswith("FOLDER: transformers cannot read it")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"heads": 5}, "heads: expected a divisor of width 32, found 5"),
        ({"revision": "main"}, "revision: only init has one; name what to start from, or leave it out"),
    ],
)
def test_configs_that_contradict_themselves(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        QFormerConfig.model_validate(SMALL | options)


def test_text_that_its_checkpoint_never_saw(tmp_path: Path) -> None:
    """A word beyond the checkpoint's is read as it was drawn."""
    bert(tmp_path)
    model = qformer(text={"vocabulary": 52, "positions": 20, "length": 20}, init=str(tmp_path))
    ids, real = text(4)
    ids[0, 0] = 51
    found = model.read("text", ids=ids, text_mask=real).text
    assert found is not None
    assert found.isfinite().all()
