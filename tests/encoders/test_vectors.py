"""Vectors as features: what comes out is what went in, or of length 1."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mmbridge.encoders.base import Encoder
from mmbridge.encoders.config import VectorsConfig
from mmbridge.errors import MediaError, RecipeError, UserError

DRAWN = np.random.default_rng(1).normal(size=(3, 2, 5)).astype(np.float32)


@pytest.mark.proof("vectors", against="NumPy: the vectors themselves, and over their norms")
@pytest.mark.parametrize("normalise", [False, True])
def test_features_are_the_vectors(normalise: bool) -> None:
    encoder = VectorsConfig(width=5, count=2, normalise=normalise).build()
    assert isinstance(encoder, Encoder)
    features = encoder.encode([encoder.prepare(each) for each in DRAWN])
    expected = DRAWN / np.linalg.norm(DRAWN, axis=-1, keepdims=True) if normalise else DRAWN
    np.testing.assert_allclose(features.values.numpy(), expected, rtol=1e-6, atol=0 if not normalise else 1e-7)
    assert features.mask.all()
    assert features.mask.shape == (3, 2)
    assert (encoder.facts.width, encoder.facts.tokens, encoder.flops()) == (5, 2, 0)
    assert not [*encoder.parameters(), *encoder.state_dict()]


def test_half_precision() -> None:
    encoder = VectorsConfig(width=5, count=2, dtype="bfloat16").build()
    assert encoder.encode([encoder.prepare(DRAWN[0])]).values.dtype == torch.bfloat16


def test_a_table_says_the_width(tmp_path: Path) -> None:
    np.save(tmp_path / "items.npy", DRAWN[:, 0])
    assert VectorsConfig(path=str(tmp_path / "items.npy")).build().facts.width == 5


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("none.npy", "expected a table of vectors, found no such file"),
        ("items.bin", r"expected a table of vectors, \.npy or \.safetensors, found another file"),
        ("items.npy", "damaged file or another kind"),
    ],
)
def test_tables_that_are_none(name: str, line: str, tmp_path: Path) -> None:
    for each in ("items.bin", "items.npy"):
        (tmp_path / each).write_bytes(b"none")
    kind: type[UserError] = UserError if name == "items.npy" else RecipeError
    with pytest.raises(kind, match=line):
        VectorsConfig(path=str(tmp_path / name)).build()


def test_another_number_or_width_is_refused() -> None:
    prepare = VectorsConfig(width=5).build().prepare
    with pytest.raises(MediaError, match="expected 1 of width 5, found 2 of width 5"):
        prepare(DRAWN[0])
    with pytest.raises(MediaError, match="expected 1 of width 5, found 1 of width 4"):
        prepare(DRAWN[0, :1, :4])


@pytest.mark.parametrize("given", [{}, {"path": "items.npy", "width": 5}])
def test_one_width(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="width: expected exactly one of path and width, found"):
        VectorsConfig(**given)
