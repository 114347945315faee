"""The default scores, streamed in uneven batches, against NumPy over whole arrays with loops over pairs and tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mmbridge.alignment import running
from mmbridge.alignment.default_scores import default_curves, depth_matrices
from mmbridge.alignment.ima import change, ima, median_norm
from mmbridge.alignment.lots import lots
from mmbridge.alignment.positions import Positions
from mmbridge.alignment.report import Curve
from mmbridge.alignment.running import LOTS, RunningSums
from mmbridge.alignment.site_states import BatchGroups, SiteStates
from mmbridge.errors import DataError
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


def streamed(
    every: Sequence[Sample],
    sizes: Sequence[int],
    strides: Sequence[int] = (1, 2),
    media: Sequence[int] | None = None,
    elsewhere: float = 7.0,
) -> RunningSums:
    """Batches of these sizes through the sums, as rows padded on the right: a word, the medium, the text."""
    sums, start, media = RunningSums(strides), 0, range(len(every)) if media is None else media
    for size in sizes:
        rows = every[start : start + size]
        longest = max(1 + len(a[0]) + len(b[0]) for a, b in rows)
        masks = torch.zeros(2, size, longest, dtype=torch.bool)
        states = torch.full((DEPTHS, size, longest, WIDTH), elsewhere)  # what stands elsewhere must not count
        for row, (perceptual, text) in enumerate(rows):
            middle, end = 1 + len(perceptual[0]), 1 + len(perceptual[0]) + len(text[0])
            masks[0, row, 1:middle], masks[1, row, middle:end] = True, True
            for depth in range(DEPTHS):
                states[depth, row, 1:middle] = torch.from_numpy(perceptual[depth])
                states[depth, row, middle:end] = torch.from_numpy(text[depth])
        groups = BatchGroups(Positions({"image": masks[0]}, masks[1]), media[start : start + size])
        for depth in range(DEPTHS):
            sums.read(SiteStates(Site("block" if depth else "input", depth), states[depth], groups))
        start += size
    return sums


def cos(x: Array, y: Array) -> float:
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def slow(every: Sequence[Sample], depth: int, lots_there_are: int = 100) -> dict[tuple[Any, ...], float]:
    """All of it at one depth by loops, from the definitions alone; others are pairs of different lots."""
    count = len(every)
    places = np.arange(count) % lots_there_are
    apart = places[:, None] != places[None]
    pooled = [[(a[depth].mean(0), b[depth].mean(0), a[0].mean(0)) for a, b in every][i] for i in range(count)]
    found: dict[tuple[Any, ...], float] = {}

    def both(name: str, pair: Any) -> None:
        table = np.array([[pair(i, j) for j in range(count)] for i in range(count)])
        own = np.eye(count, dtype=bool)
        found[name, "all"] = float(table.mean())
        found[name, "matched"] = float(table[own].mean())
        found[name, "others"] = float(table[apart].mean())

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
    cones = [float(np.mean([[u[side] @ v[side] for v in units] for u in units], where=apart)) for side in (0, 1)]
    found["gap", "chance"] = float(np.sqrt((1 - np.mean(cones)) * 2 / count))
    found["gap", ""] = float(np.linalg.norm(np.mean([u[0] for u in units], 0) - np.mean([u[1] for u in units], 0)))
    return found


@pytest.mark.parametrize("lots_there_are", [10, 100])
@pytest.mark.proof("ima", against="NumPy over whole arrays, loops over all pairs and tokens")
@pytest.mark.proof("cone", against="NumPy over whole arrays, loops over all pairs and tokens")
@pytest.mark.proof("norm", against="NumPy over whole arrays")
@pytest.mark.proof("gap", against="NumPy over whole arrays")
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
        expected = slow(every, depth, lots_there_are)
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
        assert found["gap", pair].chance[depth] == pytest.approx(expected["gap", "chance"], abs=1e-6)
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
    assert torch.all(drawn.other_pairs(table) == 0)
    assert torch.all(drawn.means(torch.diagonal(table, dim1=1, dim2=2)) == 1)
    assert drawn.all_pairs(table)[0, 0] == 1 / 20


def test_a_gap_of_one_cloud_is_at_chance() -> None:
    """Two samples of 50 from one narrow cloud are apart by the chance that is told, in the mean over 120 clouds."""
    random, gaps, chances = np.random.default_rng(1), [], []
    for _ in range(120):
        common = random.normal(size=WIDTH)
        every = [
            ([random.normal(size=(1, WIDTH)) + common] * DEPTHS, [random.normal(size=(1, WIDTH)) + common] * DEPTHS)
            for _ in range(50)
        ]
        found = curves(streamed(every, [50]))["gap", ("image", "text")]
        gaps.append(found.values[0].value ** 2)
        chances.append(found.chance[0] ** 2)
    assert np.mean(gaps) == pytest.approx(np.mean(chances), rel=0.12)


def shown_five_times(seed: int) -> list[Sample]:
    """30 media, each with five texts that are a little of it."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(30):
        medium, own = random.normal(size=(1, WIDTH)), random.normal(size=WIDTH)
        for _ in range(5):
            text = own + 0.5 * medium + 0.3 * random.normal(size=(1, WIDTH))
            found.append(([medium] * DEPTHS, [text] * DEPTHS))
    return found


def test_samples_that_show_one_medium_are_no_evidence_of_their_own() -> None:
    """Intervals are as wide as the score scatters over fresh media, and controls know nothing of the same medium."""
    owners = [number // 5 for number in range(150)]
    values, widths, controls = [], [], []
    for seed in range(25):
        found = curves(streamed(shown_five_times(seed), [150], media=owners))["ima_matched", ("image", "text")]
        first = found.values[0]
        values.append(first.value)
        widths.append((first.high - first.low) / (2 * 1.96))
        controls.append(found.control[0].value)
    assert np.std(values) == pytest.approx(np.mean(widths), rel=0.3)
    assert abs(np.mean(controls)) < 0.03
    alone = curves(streamed(shown_five_times(0), [150]))["ima_matched", ("image", "text")]
    assert np.mean(widths) > 1.6 * (alone.values[0].high - alone.values[0].low) / (2 * 1.96)


def test_states_beside_the_groups_do_not_count_and_those_inside_must_be_finite() -> None:
    every = samples(12)
    expected = curves(streamed(every, [12]))["ima", ("image", "text")]
    found = curves(streamed(every, [12], elsewhere=np.inf))["ima", ("image", "text")]
    assert found.values == expected.values
    every[3][1][2][0, 0] = np.nan
    with pytest.raises(DataError, match=r"^block 2: expected finite states, found 1 of 12 samples of a batch with"):
        streamed(every, [12])


def test_a_site_of_another_width_is_not_compared_with_the_input() -> None:
    """OPT-350m's last state is narrower than its blocks."""
    sums, count = RunningSums((1,), "final"), 12
    masks = torch.tensor([[True, False], [False, True]])[:, None].expand(2, count, 2)
    groups = BatchGroups(Positions({"image": masks[0]}, masks[1]), range(count))
    generator = torch.Generator().manual_seed(0)
    for site, width in ((Site("input", 0), 16), (Site("final", 2), 8)):
        sums.read(SiteStates(site, torch.randn(count, 2, width, generator=generator), groups))
    at_input = RunningSums((1,))
    at_input.read(SiteStates(Site("input", 0), torch.randn(count, 2, 16, generator=generator), groups))
    scores = {curve.score for curve in default_curves(sums, at_input)}
    assert {"ima", "ima_tokens_matched", "gap"} <= scores
    assert not any("input" in score for score in scores)


def test_depths_are_compared_with_depths() -> None:
    every = samples(13, seed=4)
    (matrix,) = depth_matrices(streamed(every, [6, 7]))
    units = [
        [np.mean([s[side][depth].mean(0) / np.linalg.norm(s[side][depth].mean(0)) for s in every], axis=0)
         for depth in range(DEPTHS)]
        for side in (0, 1)
    ]  # fmt: skip
    assert np.array(matrix.values) == pytest.approx(np.array(units[0]) @ np.array(units[1]).T, abs=1e-6)
    assert (matrix.score, matrix.of, matrix.rows) == ("ima_depths", ("image", "text"), ("0", "1", "2", "3"))


@pytest.mark.proof("ima", against="NumPy over whole arrays")
def test_functions_on_whole_arrays() -> None:
    every = samples(11, seed=2)
    expected = slow(every, 1)
    perceptual, text, first = (
        torch.from_numpy(np.stack([sample[side][depth].mean(0) for sample in every]))
        for side, depth in ((0, 1), (1, 1), (0, 0))
    )
    for pairs, name in (("all", "all"), ("matched", "matched"), ("other", "others")):
        assert ima(perceptual, text, pairs) == pytest.approx(expected["ima", name])  # type: ignore[arg-type]
        assert ima(first, text, pairs) == pytest.approx(expected["ima_input", name])  # type: ignore[arg-type]
    apart = [side - side.mean(0) for side in (perceptual, text)]
    centred = np.mean([cos(x, y) for x, y in zip(apart[0].numpy(), apart[1].numpy(), strict=True)])
    assert ima(perceptual, text, "matched", centred=True) == pytest.approx(float(centred))
    now, then = (torch.from_numpy(every[0][1][depth]) for depth in (2, 1))
    steps = [cos(x, y) for x, y in zip(now.numpy(), then.numpy(), strict=True)]
    assert change(now, then) == pytest.approx(float(np.mean(steps)))
    assert median_norm(now) == pytest.approx(float(np.median(np.linalg.norm(now.numpy(), axis=1))))
    with pytest.raises(DataError, match="expected at least 2, found 1"):
        ima(perceptual[:1], text[:1], "other")


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


def test_samples_that_show_two_media_are_not_compared_with_themselves() -> None:
    """Every sample shows both, so that the text beside one is the text beside the other."""
    count, width = 40, 16
    generator = torch.Generator().manual_seed(3)
    masks = torch.eye(3, dtype=torch.bool)[:, None].expand(3, count, 3)
    groups = BatchGroups(Positions({"image": masks[0], "audio": masks[1]}, masks[2]), range(count))
    sums = RunningSums([1])
    states = torch.randn(count, 3, width, generator=generator)
    sums.read(SiteStates(Site("input", 0), states, groups))
    found = curves(sums)
    texts = (states[:, 2] / states[:, 2].norm(dim=-1, keepdim=True)).double().numpy()
    table = texts @ texts.T
    value = found["across", ("text beside image", "text beside audio")].values[0]
    assert value.value == pytest.approx(float(table[~np.eye(count, dtype=bool)].mean()), abs=1e-6)
    assert value.low < 0 < value.high
