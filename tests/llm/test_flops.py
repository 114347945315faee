"""The language model's needed FLOPs: its matrices as torch counts them, its pairs as transformers' masks allow them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

from mmbridge.evaluation.flops import executed_flops
from mmbridge.llm.flops import LanguageModelFlops, Row
from mmbridge.llm.model import LanguageModel
from mmbridge.matrices import matrices
from tests.tiny import FAMILIES

WIDTH, ATTENTION, KEYS_VALUES = 32, 32, 2 * 32 * 16
"""Of the tiny models: hidden width, 4 heads of 8, and two groups of keys and values where there are groups."""


def row(*predicting: int, first: int | None = None) -> Row:
    """A sample of which everything from ``first`` on learns."""
    reads = np.arange(predicting[-1] + 1) + 1
    learns = np.zeros_like(reads) if first is None else (reads - first).clip(min=0)
    return Row(reads, learns, np.array(predicting))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_of_a_family_is_found(llm: Callable[[str], LanguageModel], family: str) -> None:
    """A forward pass over T positions, as torch counts it: their products and attention over T² pairs, twice."""
    model, length = llm(family), 11
    inputs = torch.zeros(1, length, dtype=torch.long)
    counted = executed_flops(lambda: model.model(inputs, use_cache=False))
    every = sum(matrix.size for matrix in matrices(model.model))
    flops = LanguageModelFlops(model)
    assert counted == 2 * length * every + 2 * 4 * flops.attention * length**2
    grouped = family not in ("phi", "opt", "gpt2")
    assert (flops.attention, flops.keys_values) == (ATTENTION, KEYS_VALUES if grouped else 2 * KEYS_VALUES)


def allowed(length: int, window: int | None) -> NDArray[np.bool_]:
    """(T, T) which position may attend to which."""
    rule: Any = causal_mask_function if window is None else sliding_window_causal_mask_function(window)
    ask, key = torch.meshgrid(torch.arange(length), torch.arange(length), indexing="ij")
    mask: NDArray[np.bool_] = rule(0, 0, ask, key).numpy()
    return mask


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "phi"])
@pytest.mark.parametrize(("predicting", "first"), [((20, 21, 25), 4), ((12,), 0), ((3, 9, 13), 8), ((14,), None)])
def test_needed_is_what_somebody_reads(
    llm: Callable[[str], LanguageModel], family: str, predicting: tuple[int, ...], first: int | None
) -> None:
    """Counted matrix by matrix and pair by pair, from masks of transformers, for two layers of known sizes."""
    model = llm(family)
    length, supervised = predicting[-1] + 1, np.array(predicting)
    front = length if first is None else first
    after = np.arange(length) >= front
    head = sum(matrix.size for matrix in matrices(model.head))
    sizes = [sum(matrix.size for matrix in matrices(layer)) for layer in model.layers]
    products = 0
    for index, window in enumerate((8, None) if family == "gemma2" else (None, None)):
        pairs = allowed(length, window)
        asks = np.ones(length, bool) if index == 0 else np.isin(np.arange(length), supervised)
        keys = KEYS_VALUES * (2 if family == "phi" else 1)
        others = sizes[index] - keys
        products += keys * length + others * asks.sum() + 2 * ATTENTION * pairs[asks].sum()
        products += keys * after.sum() + others * (asks & after).sum()
        learning = pairs[asks & after]
        products += 2 * ATTENTION * learning.sum() + 2 * ATTENTION * learning[:, after].sum()
    products += head * (len(supervised) + (supervised >= front).sum())
    assert LanguageModelFlops(model)(row(*predicting, first=first)) == 2 * products
