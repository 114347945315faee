"""The CLIP text tower against the text embeddings of transformers and open_clip."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import transformers

from mmbridge.encoders.text import clip_text_tower
from mmbridge.errors import RecipeError

Folders = Callable[[str], Path]

TEXTS = ["a red circle", "a red box", "six"]


@pytest.mark.proof("transformers", against="transformers' CLIPModel.get_text_features")
def test_against_transformers(folder_of: Folders) -> None:
    folder = folder_of("clip_words")
    model: Any = transformers.CLIPModel.from_pretrained(folder).eval()  # type: ignore[no-untyped-call]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tower = clip_text_tower(str(folder))
    for text in TEXTS:
        with torch.no_grad():
            features = model.get_text_features(**tokenizer(text, return_tensors="pt")).pooler_output
        wanted = features / features.norm(dim=-1, keepdim=True)
        torch.testing.assert_close(tower([text]), wanted, rtol=1e-5, atol=1e-6)
    together = tower(TEXTS)
    assert (together[0] - together[1]).norm() > 1e-3
    assert together.shape == (3, tower.width)
    torch.testing.assert_close(together, torch.cat([tower([text]) for text in TEXTS]), rtol=1e-5, atol=1e-6)


@pytest.mark.proof("open_clip", against="open_clip's encode_text")
def test_against_open_clip(folder_of: Folders) -> None:
    folder = folder_of("open_clip")
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    tower = clip_text_tower(str(folder))
    with torch.no_grad():
        wanted = model.encode_text(tokenizer(TEXTS), normalize=True)
    torch.testing.assert_close(tower(TEXTS), wanted, rtol=1e-5, atol=1e-6)
    assert tower.width == 24


@pytest.mark.parametrize("family", ["clip_words", "open_clip"])
def test_frozen(folder_of: Folders, family: str) -> None:
    tower = clip_text_tower(str(folder_of(family)), dtype="bfloat16").train()
    assert not any(module.training for module in tower.modules())
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    assert tower(TEXTS).dtype == torch.bfloat16
    torch.testing.assert_close(tower(TEXTS).float().norm(dim=-1), torch.ones(3), rtol=0, atol=0.02)


@pytest.mark.parametrize("family", ["clip_words", "open_clip"])
def test_long_texts_are_cut(folder_of: Folders, family: str) -> None:
    tower = clip_text_tower(str(folder_of(family)))
    assert tower(["circle " * 200]).isfinite().all()


def test_what_has_no_text_tower(folder_of: Folders) -> None:
    with pytest.raises(RecipeError, match="expected a CLIP model, found siglip"):
        clip_text_tower(str(folder_of("siglip")))
