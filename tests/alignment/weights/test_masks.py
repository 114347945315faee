"""Masks by magnitude and by chance, their rows, and how far two of them agree."""

import numpy as np
import pytest
import torch

from mmbridge.alignment.weights.iou import chance, iou, iou_across_depth
from mmbridge.alignment.weights.masks import highest, magnitude, random, wanda
from mmbridge.errors import UserError
from mmbridge.llm.config import LLMConfig
from mmbridge.llm.model import LanguageModel
from mmbridge.llm.weight_mask import WeightMask, intersection, linear_layers, matrix
from tests.tiny import tiny_llm


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """Wide enough for shares of its weights to be near what they are on average."""
    folder = tmp_path_factory.mktemp("wide")
    return LLMConfig(path=str(tiny_llm(folder, hidden_size=128, intermediate_size=256, num_hidden_layers=3))).build()


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return LLMConfig(path=str(tiny_llm(tmp_path_factory.mktemp("gpt2"), "gpt2"))).build()


@pytest.mark.parametrize(("sparsity", "dropped"), [(0.0, 0), (0.29, 9), (0.3, 9), (0.5, 16), (0.75, 24), (0.99, 31)])
def test_every_row_drops_its_share(turned: LanguageModel, sparsity: float, dropped: int) -> None:
    """Of 32 inputs; GPT-2's queries, keys and values are one layer of 96 outputs, kept (32, 96)."""
    norms = {name: torch.ones(matrix(layer).shape[1]) for name, layer in linear_layers(turned.layers).items()}
    masks = magnitude(turned, sparsity), random(turned, sparsity), wanda(turned, norms, sparsity)
    for mask in masks:
        assert mask.counts("0.attn.c_attn").tolist() == [32 - dropped] * 96
        assert mask.kept("0.attn.c_attn").sum(dim=1).tolist() == [32 - dropped] * 96
    for name, bits in masks[0].bits.items():  # where all inputs are alike, Wanda's score is the magnitude
        np.testing.assert_array_equal(masks[2].bits[name], bits)


def test_the_largest_stay(turned: LanguageModel) -> None:
    kept = magnitude(turned, 0.5).kept("1.mlp.c_proj")
    weight = turned.layers[1].mlp.c_proj.weight.detach().numpy().T  # type: ignore[union-attr, operator]
    for row, stays in zip(np.abs(weight), kept.numpy(), strict=True):
        assert row[stays].min() >= row[~stays].max()


def test_among_equals_later_inputs_stay() -> None:
    found = highest(torch.tensor([[1.0, 1.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0]]), torch.tensor([2, 3]))
    assert found.tolist() == [[False, False, True, True], [False, True, True, True]]


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.5), (0.3, 0.3), (0.7, 0.7), (0.2, 0.6)])
def test_independent_masks_agree_by_chance(llm: LanguageModel, first: float, second: float) -> None:
    """Within a fifth of a per cent: k₁k₂ / (k₁ + k₂ − k₁k₂), and k / (2 − k) for equals."""
    masks = random(llm, first, 1), random(llm, second, 2)
    k, m = 1 - first, 1 - second
    level = k * m / (k + m - k * m)
    assert chance(*masks) == pytest.approx(level, abs=0.006)  # rows drop whole weights
    assert np.mean([*iou(*masks).values()]) == pytest.approx(chance(*masks), abs=0.002)
    if first == second:
        assert level == pytest.approx(k / (2 - k))
    assert np.mean([*iou_across_depth(masks[0], 2).values()]) == pytest.approx(chance(masks[0], masks[0]), abs=0.004)


def test_agreement_is_counted_over_bits(llm: LanguageModel) -> None:
    first, second = random(llm, 0.5, 1), magnitude(llm, 0.3)
    for name, found in iou(first, second).items():
        one, other = first.kept(name).numpy(), second.kept(name).numpy()
        assert found == (one & other).sum() / (one | other).sum()
    assert set(iou(first, first).values()) == {1.0}
    across = iou_across_depth(first, 2)
    assert {name.partition(".")[0] for name in across} == {"0"}
    one, other = (first.kept(f"{block}.mlp.up_proj").numpy() for block in (0, 2))
    assert across["0.mlp.up_proj"] == (one & other).sum() / (one | other).sum()


def test_layers_of_other_shapes_are_not_held_together() -> None:
    kept = {"0.a": torch.ones(2, 8).bool(), "2.a": torch.ones(2, 4).bool(), "1.a": torch.ones(2, 4).bool()}
    assert iou_across_depth(WeightMask.of("", "", kept), 2) == {}
    assert iou_across_depth(WeightMask.of("", "", kept), 1) == {"1.a": 1.0}


def test_the_intersection_stays_in_all(llm: LanguageModel) -> None:
    masks = [random(llm, 0.5, seed) for seed in range(3)]
    shared = intersection(masks, "shared")
    for name in shared.bits:
        expected = np.logical_and.reduce([each.kept(name).numpy() for each in masks])
        np.testing.assert_array_equal(shared.kept(name).numpy(), expected)
    assert shared.sparsity == pytest.approx(1 - 0.5**3, abs=0.002)


def test_controls_keep_as_many_in_every_row(llm: LanguageModel) -> None:
    shared = intersection([random(llm, 0.5, seed) for seed in range(2)], "shared")
    for control in (magnitude(llm, shared), random(llm, shared, 5)):
        for name in shared.bits:
            assert control.counts(name).tolist() == shared.counts(name).tolist()
        assert control.sparsity == shared.sparsity


def test_random_masks_follow_their_seed(llm: LanguageModel) -> None:
    one, again, other = random(llm, 0.5, 1), random(llm, 0.5, 1), random(llm, 0.5, 2)
    assert all(np.array_equal(bits, again.bits[name]) for name, bits in one.bits.items())
    assert not any(np.array_equal(bits, other.bits[name]) for name, bits in one.bits.items())


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_a_sparsity_leaves_some(llm: LanguageModel, sparsity: float) -> None:
    with pytest.raises(UserError, match="expected a share of weights to drop"):
        magnitude(llm, sparsity)
