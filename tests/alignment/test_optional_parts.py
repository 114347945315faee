"""What reports hold of stored pairs, put together from scores that are proven elsewhere: against NumPy."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax

from mmbridge.alignment.lens_scores import lens_parts
from mmbridge.alignment.media_numbers import MediaNumbers
from mmbridge.alignment.mir import mir_term
from mmbridge.alignment.parts import Part
from mmbridge.alignment.pooled_scores import centred_parts, kernel_parts, neighbour_parts, pca_parts
from mmbridge.alignment.report import Curve, Histogram, Matrix, Scalar, View, Words
from mmbridge.alignment.running import Side
from mmbridge.alignment.stored import StoredDepth
from mmbridge.alignment.token_scores import mir_parts
from mmbridge.data.sample import Medium, Sample, conversation
from mmbridge.llm.config import LLMConfig
from mmbridge.llm.model import LanguageModel
from tests.tiny import tiny_llm

OF = ("image", "text")
PAIRS, WIDTH, DEPTHS = 24, 32, 3

Array = NDArray[np.float64]


def stored(seed: int = 0, shared: float = 1.0, pairs: int = PAIRS, latent: int = 4) -> dict[int, StoredDepth]:
    """Pairs whose two sides share a few directions, of one to five tokens."""
    random = np.random.default_rng(seed)
    maps, common = random.normal(size=(2, latent, WIDTH)), random.normal(size=(pairs, latent))
    found = {depth: StoredDepth() for depth in range(DEPTHS)}
    for pair in range(pairs):
        for side in Side:
            tokens = shared * common[pair] @ maps[side] + random.normal(size=(random.integers(1, 6), WIDTH)) + side
            for depth in range(DEPTHS):
                values = torch.from_numpy(tokens + 0.3 * depth * random.normal(size=tokens.shape)).float()
                found[depth].tokens[side].append(values)
                found[depth].pooled[side].append(values.mean(0))
                found[depth].media.add(pair)
    return found


def pooled(states: StoredDepth) -> tuple[Array, Array]:
    first, second = (torch.stack(states.pooled[side]).double().numpy() for side in Side)
    return first, second


def unit(values: Array) -> Array:
    lengths: Array = np.linalg.norm(values, axis=-1, keepdims=True)
    return values / lengths


def curve(parts: list[Part], score: str, *of: str) -> Curve:
    (found,) = (each for each in parts if isinstance(each, Curve) and (each.score, each.of) == (score, of or OF))
    return found


def test_centred_cosines() -> None:
    depths = stored()
    parts = [*centred_parts(depths, OF)]
    found = curve(parts, "ima_centred_matched")
    for depth, states in depths.items():
        first, second = (unit(side - side.mean(0)) for side in pooled(states))
        table, own = first @ second.T, np.eye(PAIRS, dtype=bool)
        assert found.values[depth].value == pytest.approx(float(table[own].mean()))
        assert found.control[depth].value == pytest.approx(float(table[~own].mean()))
        at_input = unit(pooled(depths[0])[0] - pooled(depths[0])[0].mean(0))
        expected = float((at_input * second).sum(1).mean())
        assert curve(parts, "ima_centred_input_matched").values[depth].value == pytest.approx(expected)
    histograms = [each for each in parts if isinstance(each, Histogram)]
    assert [each.depth for each in histograms] == [0, 1, 2]
    assert all(sum(each.counts["matched"]) == pytest.approx(1) for each in histograms)
    assert found.mean.value == pytest.approx(np.mean([each.value for each in found.values]))


def near(values: Array, k: int) -> list[set[int]]:
    """By loops; values are clamped as the released code does."""
    bound = np.mean([np.quantile(np.abs(row), 0.95) for row in values])
    rows = unit(np.clip(values, -bound, bound))
    return [
        {int(j) for j in sorted((j for j in range(len(rows)) if j != i), key=lambda j: -rows[i] @ rows[j])[:k]}
        for i in range(len(rows))
    ]


@pytest.mark.proof("mutual_knn", against="NumPy, sorted by loops, depths with depths and shuffled")
def test_mutual_neighbours_of_depths_and_of_others() -> None:
    depths = stored()
    parts, k = [*neighbour_parts(depths, OF)], 10
    sides = [[near(pooled(states)[side], k) for states in depths.values()] for side in Side]

    def agreed(first: list[set[int]], second: list[set[int]]) -> float:
        return float(np.mean([len(a & b) / k for a, b in zip(first, second, strict=True)]))

    table = np.array([[agreed(one, other) for other in sides[1]] for one in sides[0]])
    found = curve(parts, "mutual_knn")
    assert [each.value for each in found.values] == pytest.approx(list(np.diagonal(table)))
    order = [(i + PAIRS // 2) % PAIRS for i in range(PAIRS)]
    for depth, states in depths.items():
        others = near(pooled(states)[1][order], k)
        assert found.control[depth].value == pytest.approx(agreed(sides[0][depth], others))
    (matrix,) = (each for each in parts if isinstance(each, Matrix))
    assert np.array(matrix.values) == pytest.approx(table)
    (best,) = (each for each in parts if isinstance(each, Scalar))
    assert best.value.value == pytest.approx(float(table.max()))
    assert found.chance == (k / (PAIRS - 1),) * DEPTHS


@pytest.mark.parametrize("score", ["mutual_knn", "cka"])
def test_intervals_are_as_wide_as_scores_scatter(score: str) -> None:
    """Over fresh samples of one world: neighbours are shared, so that samples are not evidence each of its own."""
    made = {"mutual_knn": neighbour_parts, "cka": kernel_parts}[score]
    values, widths = [], []
    world = np.random.default_rng(0).normal(size=(2, 6, WIDTH))
    for seed in range(20):
        random, states = np.random.default_rng(seed + 1), StoredDepth()
        common = random.normal(size=(150, 6))
        for side in Side:
            states.pooled[side].extend(
                torch.from_numpy(common @ world[side] + 1.5 * random.normal(size=(150, WIDTH))).float()
            )
        found = curve([*made({0: states}, OF)], score).values[0]
        values.append(found.value)
        widths.append((found.high - found.low) / (2 * 1.96))
    assert 0.6 < np.std(values, ddof=1) / np.mean(widths) < 1.5


def test_controls_keep_no_pair() -> None:
    """Sides that are one and the same: with every text beside another medium nothing of that is left."""
    depths = stored(shared=0.0, pairs=60)
    for states in depths.values():
        states.pooled[Side.TEXT][:] = states.pooled[Side.PERCEPTUAL]
    for parts in (neighbour_parts(depths, OF), kernel_parts(depths, OF)):
        for found in (each for each in parts if isinstance(each, Curve)):
            assert all(each.value == pytest.approx(1) for each in found.values)
            assert all(abs(each.value) < 0.3 for each in found.control)


def test_mir_is_beside_what_so_many_tokens_of_one_cloud_are_apart() -> None:
    depths = stored(shared=0.0)
    parts = [*mir_parts(depths, OF)]
    found = curve(parts, "mir_term")
    assert found.depths == (1, 2)
    for place, depth in enumerate(found.depths):
        clouds = [torch.cat(depths[depth].tokens[side]) for side in Side]
        halves = [torch.cat(depths[depth].tokens[Side.TEXT][part::2]) for part in (0, 1)]
        assert found.values[place].value == pytest.approx(mir_term(*clouds))
        scale = sum(1 / len(each) for each in clouds) / sum(1 / len(each) for each in halves)
        assert found.control[place].value == pytest.approx(scale * mir_term(*halves))
    (whole,) = (each for each in parts if isinstance(each, Scalar))
    assert whole.value.value == pytest.approx(np.log10(sum(each.value for each in found.values)))


def test_mirs_control_is_what_one_cloud_scores() -> None:
    """However few tokens there are beside the width: two samples of one cloud are as far apart as the control says."""
    values, controls = [], []
    for seed in range(12):
        random, states = np.random.default_rng(seed), StoredDepth()
        for side, length in ((Side.PERCEPTUAL, 8), (Side.TEXT, 4)):
            states.tokens[side].extend(torch.from_numpy(random.normal(size=(30, length, WIDTH)) + 1).float())
        found = curve([*mir_parts({1: states}, OF)], "mir_term")
        values.append(found.values[0].value)
        controls.append(found.control[0].value)
    assert np.mean(controls) == pytest.approx(np.mean(values), rel=0.15)


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return LLMConfig(path=str(tiny_llm(tmp_path_factory.mktemp("lens")))).build()


@pytest.mark.proof("words", against="transformers' final norm and head, SciPy's softmax, token by token")
def test_words_entropies_and_divergences(llm: LanguageModel) -> None:
    """Through transformers' own norm and head, token by token, in NumPy."""
    depths = stored()
    parts = [*lens_parts(depths, OF, llm)]
    base = llm.model
    words = {each.depth: each for each in parts if isinstance(each, Words)}
    for depth, states in depths.items():
        said: list[list[Array]] = []
        for side in Side:
            with torch.no_grad():
                logits = [base.lm_head(base.model.norm(each)).double().numpy() for each in states.tokens[side]]
            said.append([np.exp(log_softmax(each, axis=-1)) for each in logits])
            undecided = [float(np.mean(-(each * np.log(each)).sum(-1))) for each in said[side]]
            found = curve(parts, "entropy", OF[side])
            assert found.values[depth].value == pytest.approx(float(np.mean(undecided)), rel=1e-5)
            share = np.mean([each.mean(0) for each in said[side]], axis=0)
            best = np.argsort(-share)[:8]
            told = words[depth].said[OF[side]]
            assert [value for _, value in told] == pytest.approx(list(share[best]), rel=1e-5)
            assert told[0][0] == llm.tokenizer.decode([int(best[0])])
        p, q = ([each.mean(0) for each in side] for side in said)
        apart = [float((a * np.log(a / b)).sum()) for a, b in zip(p, q, strict=True)]
        others = [float((a * np.log(a / b)).sum()) for a, b in zip(p, [q[-1], *q[:-1]], strict=True)]
        found = curve(parts, "kl")
        assert found.values[depth].value == pytest.approx(np.mean(apart), rel=1e-4)
        assert found.control[depth].value == pytest.approx(np.mean(others), rel=1e-4)


def test_views_are_the_two_directions_of_most_variance() -> None:
    depths = stored()
    views = {each.depth: each for each in pca_parts(depths, OF) if isinstance(each, View)}
    both = np.concatenate(pooled(depths[1]))
    values, directions = np.linalg.eigh(np.cov(both.T))
    expected = (both - both.mean(0)) @ directions[:, ::-1][:, :2]
    found = np.concatenate([np.array(views[1].points[name]) for name in OF])
    assert np.abs(found) == pytest.approx(np.abs(expected), abs=1e-5)
    share = values[::-1][:2] / values.sum()
    assert views[1].method == f"PCA: {share[0]:.0%} and {share[1]:.0%} of the variance"


def test_samples_are_numbered_by_what_they_show(tmp_path: Path) -> None:
    for name, content in (("a.bin", b"one"), ("b.bin", b"two"), ("copy.bin", b"one"), ("c.bin", b"three")):
        (tmp_path / name).write_bytes(content)

    def shows(*names: str) -> Iterator[Sample]:
        for each in names:
            media = (Medium("image", tmp_path / f"{name}.bin") for name in each.split("+"))
            yield Sample(each, conversation(("user", (*media, "?")), ("assistant", ("!",))))

    number = MediaNumbers()
    assert [number(each) for each in shows("a", "b", "a", "copy", "c", "b+c", "c")] == [0, 1, 0, 0, 2, 1, 2]


def test_states_that_do_not_vary_have_no_neighbours() -> None:
    """As where every picture has one caption: at the input all texts are the same, but for rounding."""
    depths = stored()
    states = depths[0]
    one = states.pooled[Side.TEXT][0]
    states.pooled[Side.TEXT][:] = [one * (1 + 1e-7 * place) for place in range(PAIRS)]
    for parts, scores in ((neighbour_parts(depths, OF), ("mutual_knn",)), (kernel_parts(depths, OF), ("cka", "cknna"))):
        every = [*parts]
        for score in scores:
            found = curve(every, score)
            assert np.isnan(found.values[0].value)
            rest = [each.value for each in found.values[1:]]
            assert np.isfinite(rest).all()
            assert found.mean.value == pytest.approx(np.mean(rest))
            assert all(each.high <= 1 for each in found.values[1:])
