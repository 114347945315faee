"""The default scores, streamed in uneven batches, against NumPy over whole arrays with loops over pairs and tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mmbridge.alignment import running
from mmbridge.alignment.default_scores import default_curves
from mmbridge.alignment.lots import lots
from mmbridge.alignment.positions import Positions
from mmbridge.alignment.report import Curve
from mmbridge.alignment.running import LOTS, RunningSums
from mmbridge.alignment.site_states import BatchGroups, SiteStates
from mmbridge.llm.sites import Site

Array = NDArray[np.float64]
Sample = tuple[list[Array], list[Array]]
"""Perceptual tokens (M, D) and text (L, D) at every depth."""

DEPTHS, WIDTH = 4, 12


def samples(count: int, seed: int = 0) -> list[Sample]:
    """States with a direction in common, that change little from depth to depth; lengths differ."""
    random = np.random.default_rng(seed)
    common = random.normal(size=(2, WIDTH))
    found = []
    for _ in range(count):
        own = random.normal(size=WIDTH)
        sides = []
        for side, length in enumerate(random.integers(1, 6, size=2)):
            states = [random.normal(size=(length, WIDTH)) + common[side] + own]
            for _ in range(DEPTHS - 1):
                states.append(states[-1] + 0.7 * random.normal(size=(length, WIDTH)))
            sides.append(states)
        found.append((sides[0], sides[1]))
    return found


def streamed(every: Sequence[Sample], sizes: Sequence[int], strides: Sequence[int] = (1, 2)) -> RunningSums:
    """Batches of these sizes through the sums, as rows padded on the right: a word, the medium, the text."""
    sums, start = RunningSums(strides), 0
    for size in sizes:
        rows = every[start : start + size]
        longest = max(1 + len(a[0]) + len(b[0]) for a, b in rows)
        masks = torch.zeros(2, size, longest, dtype=torch.bool)
        states = torch.full((DEPTHS, size, longest, WIDTH), 7.0)  # what stands elsewhere must not count
        for row, (perceptual, text) in enumerate(rows):
            middle, end = 1 + len(perceptual[0]), 1 + len(perceptual[0]) + len(text[0])
            masks[0, row, 1:middle], masks[1, row, middle:end] = True, True
            for depth in range(DEPTHS):
                states[depth, row, 1:middle] = torch.from_numpy(perceptual[depth])
                states[depth, row, middle:end] = torch.from_numpy(text[depth])
        groups = BatchGroups(Positions({"image": masks[0]}, masks[1]), range(start, start + size))
        for depth in range(DEPTHS):
            sums.read(SiteStates(Site("block" if depth else "input", depth), states[depth], groups))
        start += size
    return sums


def cos(x: Array, y: Array) -> float:
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def slow(every: Sequence[Sample], depth: int) -> dict[tuple[Any, ...], float]:
    """All of it at one depth by loops, from the definitions alone."""
    count = len(every)
    pooled = [[(a[depth].mean(0), b[depth].mean(0), a[0].mean(0)) for a, b in every][i] for i in range(count)]
    found: dict[tuple[Any, ...], float] = {}

    def both(name: str, pair: Any) -> None:
        table = np.array([[pair(i, j) for j in range(count)] for i in range(count)])
        own = np.eye(count, dtype=bool)
        found[name, "all"] = float(table.mean())
        found[name, "matched"] = float(table[own].mean())
        found[name, "others"] = float(table[~own].mean())

    def tokens(xs: Array, ys: Array) -> float:
        return float(np.mean([[cos(x, y) for y in ys] for x in xs]))

    both("ima", lambda i, j: cos(pooled[i][0], pooled[j][1]))
    both("ima_input", lambda i, j: cos(pooled[i][2], pooled[j][1]))
    both("ima_tokens", lambda i, j: tokens(every[i][0][depth], every[j][1][depth]))
    both("ima_tokens_input", lambda i, j: tokens(every[i][0][0], every[j][1][depth]))
    for side, name in enumerate(("image", "text")):
        both(f"cone/{name}", lambda i, j, side=side: cos(pooled[i][side], pooled[j][side]))
        both(f"cone_tokens/{name}", lambda i, j, side=side: tokens(every[i][side][depth], every[j][side][depth]))
        found["norm", name] = float(np.mean([np.median(np.linalg.norm(s[side][depth], axis=1)) for s in every]))
        for stride in (1, 2):
            if stride <= depth:
                found[f"consecutive_{stride}", name] = float(
                    np.mean(
                        [np.mean([cos(x, y) for x, y in zip(s[side][depth], s[side][depth - stride], strict=True)])
                         for s in every]
                    )
                )  # fmt: skip
    units = [[v / np.linalg.norm(v) for v in (p[0], p[1])] for p in pooled]
    found["gap", ""] = float(np.linalg.norm(np.mean([u[0] for u in units], 0) - np.mean([u[1] for u in units], 0)))
    return found


@pytest.mark.parametrize("lots_there_are", [10, 100])
@pytest.mark.proof("ima", against="NumPy over whole arrays, loops over all pairs and tokens")
@pytest.mark.proof("cone", against="NumPy over whole arrays, loops over all pairs and tokens")
@pytest.mark.proof("norm", against="NumPy over whole arrays")
@pytest.mark.proof("consecutive", against="NumPy over whole arrays, loops over tokens")
def test_streams_are_what_whole_arrays_give(lots_there_are: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "LOTS", lots_there_are)
    every = samples(23)
    sums = streamed(every, [5, 1, 7, 10])
    found = {(curve.score, curve.of): curve for curve in default_curves(sums, sums)}

    def at(score: str, *of: str, depth: int) -> float:
        curve = found[score, of]
        return curve.values[curve.depths.index(depth)].value

    pair = ("image", "text")
    for depth in range(DEPTHS):
        expected = slow(every, depth)
        for name in ("ima", "ima_input", "ima_tokens", "ima_tokens_input"):
            assert at(name, *pair, depth=depth) == pytest.approx(expected[name, "all"], abs=1e-6)
            assert at(f"{name}_matched", *pair, depth=depth) == pytest.approx(expected[name, "matched"], abs=1e-6)
            for score in (name, f"{name}_matched"):
                control = found[score, pair].control[depth].value
                assert control == pytest.approx(expected[name, "others"], abs=1e-6)
        for group in pair:
            assert at("cone", group, depth=depth) == pytest.approx(expected[f"cone/{group}", "others"], abs=1e-6)
            tokens = at("cone_tokens", group, depth=depth)
            assert tokens == pytest.approx(expected[f"cone_tokens/{group}", "others"], abs=1e-6)
            assert at("norm", group, depth=depth) == pytest.approx(expected["norm", group], rel=1e-6)
            for stride in (1, 2):
                if stride <= depth:
                    change = at(f"consecutive_{stride}", group, depth=depth)
                    assert change == pytest.approx(expected[f"consecutive_{stride}", group], abs=1e-6)
        assert at("gap", *pair, depth=depth) == pytest.approx(expected["gap", ""], abs=1e-6)
    mean = np.mean([slow(every, depth)["ima", "all"] for depth in range(DEPTHS)])
    assert found["ima", pair].mean.value == pytest.approx(mean, abs=1e-6)
    assert found["consecutive_2", ("text",)].depths == (2, 3)


def curves(sums: RunningSums) -> Mapping[tuple[str, tuple[str, ...]], Curve]:
    return {(curve.score, curve.of): curve for curve in default_curves(sums, sums)}


def test_memory_does_not_grow_with_samples() -> None:
    few, many = streamed(samples(LOTS + 1), [LOTS + 1]), streamed(samples(3 * LOTS), [LOTS] * 3)
    assert few.nbytes == many.nbytes
    assert few.nbytes == pytest.approx(8 * 4 * LOTS * WIDTH * DEPTHS, rel=0.5)


def test_limits() -> None:
    """The same cloud on both sides: cosines of one, no gap. Orthogonal clouds: cosines of zero, a gap of √2."""
    one = np.zeros(WIDTH)
    one[0] = 3.0
    other = np.roll(one, 1)
    same = [([one[None]] * DEPTHS, [np.stack([one, 2 * one])] * DEPTHS) for _ in range(12)]
    found = curves(streamed(same, [12]))
    assert {value.value for value in found["ima_matched", ("image", "text")].values} == {1.0}
    assert {value.value for value in found["gap", ("image", "text")].values} == {0.0}
    assert {value.value for value in found["cone", ("text",)].values} == {1.0}
    assert {value.value for value in found["consecutive_1", ("text",)].values} == {1.0}
    apart = [([one[None]] * DEPTHS, [other[None]] * DEPTHS) for _ in range(12)]
    found = curves(streamed(apart, [12]))
    assert {value.value for value in found["ima", ("image", "text")].values} == {0.0}
    assert all(each.value == pytest.approx(np.sqrt(2)) for each in found["gap", ("image", "text")].values)


def test_an_interval_of_all_pairs_covers_as_often_as_it_says() -> None:
    """Against the spread of the score over fresh samples: of 60 intervals of 95 %, few miss the score of many."""
    random = np.random.default_rng(5)
    common = random.normal(size=WIDTH)
    many = np.random.default_rng(7).normal(size=(2, 20000, WIDTH)) + common
    directions = (many / np.linalg.norm(many, axis=2, keepdims=True)).mean(axis=1)
    truth, hits = float(directions[0] @ directions[1]), 0
    for _ in range(60):
        first, second = (random.normal(size=(40, WIDTH)) + common for _ in range(2))
        units = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (first, second)]
        table = torch.from_numpy(units[0] @ units[1].T)
        drawn = lots(torch.ones(40, dtype=torch.float64), resamples=300)
        low, high = np.percentile(drawn.all_pairs(table[None])[0, 1:].numpy(), [2.5, 97.5])
        hits += low <= truth <= high
    assert 52 <= hits <= 60


def test_a_lot_drawn_twice_is_not_paired_with_its_copy() -> None:
    """With orthonormal samples all other pairs are at 0, in every resample."""
    table = torch.eye(20, dtype=torch.float64)[None]
    drawn = lots(torch.ones(20, dtype=torch.float64), resamples=50)
    matched = torch.diagonal(table, dim1=1, dim2=2)
    assert torch.all(drawn.other_pairs(table, matched) == 0)
    assert torch.all(drawn.means(matched) == 1)
    assert drawn.all_pairs(table)[0, 0] == 1 / 20


def test_two_media_are_compared_with_each_other() -> None:
    """Samples that show one or the other in one batch: each has its own pairs; across, all pairs of the two."""
    every = samples(14, seed=3)
    sums = RunningSums([1])
    longest = max(len(a[0]) + len(b[0]) for a, b in every)
    masks = torch.zeros(3, 14, longest, dtype=torch.bool)
    states = torch.zeros(DEPTHS, 14, longest, WIDTH)
    for row, (perceptual, text) in enumerate(every):
        middle, end = len(perceptual[0]), len(perceptual[0]) + len(text[0])
        masks[row % 2, row, :middle], masks[2, row, middle:end] = True, True
        for depth in range(DEPTHS):
            states[depth, row, :end] = torch.from_numpy(np.concatenate([perceptual[depth], text[depth]]))
    groups = BatchGroups(Positions({"image": masks[0], "audio": masks[1]}, masks[2]), range(14))
    for depth in range(DEPTHS):
        sums.read(SiteStates(Site("block" if depth else "input", depth), states[depth], groups))
    found = curves(sums)
    for depth in range(DEPTHS):
        for number, kind in enumerate(("image", "audio")):
            expected = slow(every[number::2], depth)["ima", "matched"]
            value = found["ima_matched", (kind, f"text beside {kind}")].values[depth].value
            assert value == pytest.approx(expected, abs=1e-6)
        for side, of in enumerate((("image", "audio"), ("text beside image", "text beside audio"))):
            pooled = [sample[side][depth].mean(0) for sample in every]
            expected = float(np.mean([[cos(x, y) for y in pooled[1::2]] for x in pooled[::2]]))
            assert found["across", of].values[depth].value == pytest.approx(expected, abs=1e-6)
