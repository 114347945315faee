"""The world's arithmetic with a space in which every word has an axis of its own, and on a tiny bridge."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

from mmbridge.bridge import Bridge
from mmbridge.data.world.language import parse_facts
from mmbridge.evaluation.arithmetic import moved, nearest
from mmbridge.recipes import world_arithmetic
from mmbridge.recipes.world_arithmetic import THINGS, WORDS, drawn, scene, scores, words
from tests.tiny_bridge import tiny_recipe

VOCABULARY = [word for every in WORDS.values() for word in every]


class Axes:
    """Reads its texts: each word of an object has an axis; the background and the place are the gap between texts and
    what is seen."""

    about, shape = "axes", (1, len(VOCABULARY) + 1)

    def media(self, batch: Any) -> Tensor:
        raise AssertionError

    def ids(self, text: str, name: str) -> tuple[int, ...]:
        (thing,) = [fact for fact in parse_facts(text) if len(fact) == 1]
        said = {*thing[0].split(), *(word for fact in parse_facts(text) for word in fact[1:])}
        said |= set() if {"striped", "dotted"} & said else {"plain"}
        return tuple(number for number, word in enumerate(VOCABULARY) if word in said)

    def texts(self, ids: Sequence[Sequence[int]]) -> Tensor:
        made = torch.zeros(len(ids), self.shape[1])
        for row, numbers in enumerate(ids):
            made[row, [*numbers, -1]] = 1.0
        return made


def seen(number: int) -> Tensor:
    return torch.tensor([float(word in (getattr(THINGS[number], of) for of in WORDS)) for word in VOCABULARY] + [0.0])


def test_with_an_axis_for_every_word_all_are_right() -> None:
    told, queries = words(Axes()), drawn(200, 0)
    pool = torch.stack([seen(number) for number in range(len(THINGS))])
    pool = pool / pool.norm(dim=1, keepdim=True)
    starts = pool[[query.start for query in queries]]
    old, new = (torch.stack([told[getattr(query, name)] for query in queries]) for name in ("old", "new"))
    found = nearest(moved(starts, old, new, 0.5), pool).tolist()
    assert found == [query.end for query in queries]
    result = scores(queries, found)
    assert all(score.value == 1 for score in result.values())
    assert {"right/shape", "right/colour", "right/size", "right/texture", "right/held out"} < result.keys()
    assert_close(told["red"] - told["blue"], seen_axis("red") - seen_axis("blue"))


def seen_axis(word: str) -> Tensor:
    axis = torch.zeros(len(VOCABULARY) + 1)
    axis[VOCABULARY.index(word)] = 1.0
    return axis


@pytest.mark.parametrize(
    ("option", "line"),
    [
        (["--seed", "-1"], "--seed: expected 0 or more, found -1"),
        (["--scale", "nan"], "--scale: expected a number, found nan"),
        (["--picture", "x.banana"], "--picture: expected a name that ends in .png"),
    ],
)
def test_bad_options_are_told_before_any_work(
    option: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["world_arithmetic", "nowhere", *option])
    with pytest.raises(SystemExit) as ended:
        world_arithmetic.main()
    assert ended.value.code == 2
    assert line in capsys.readouterr().err


def test_queries_ask_for_one_other_word() -> None:
    queries = drawn(400, 5)
    assert queries == drawn(400, 5) != drawn(400, 6)
    for query in queries:
        before, after = THINGS[query.start], THINGS[query.end]
        changed = [of for of in WORDS if getattr(before, of) != getattr(after, of)]
        assert changed == [query.of]
        assert (getattr(before, query.of), getattr(after, query.of)) == (query.old, query.new)
    assert {of: sum(query.of == of for query in queries) for of in WORDS} == dict.fromkeys(WORDS, 100)


def test_scores_are_counted() -> None:
    queries = drawn(60, 1)
    found = np.random.default_rng(0).integers(len(THINGS), size=60).tolist()
    found[:20] = [query.end for query in queries[:20]]
    result = scores(queries, found)
    changed = [getattr(THINGS[number], query.of) == query.new for query, number in zip(queries, found, strict=True)]
    assert result["right"].value == pytest.approx(np.mean([n == q.end for q, n in zip(queries, found, strict=True)]))
    assert result["changed"].value == pytest.approx(np.mean(changed))
    stays = scores(queries, [query.start for query in queries])
    assert (stays["right"].value, stays["changed"].value, stays["kept"].value) == (0, 0, 1)


def test_scenes_of_a_thing_differ_in_what_no_word_says() -> None:
    random = np.random.default_rng(0)
    first, second = scene(5, random), scene(5, random)
    assert first != second
    assert first.facts == second.facts


@pytest.fixture
def folder(parts: Path, tmp_path: Path) -> str:
    Bridge(tiny_recipe(parts)).save_pretrained(tmp_path / "bridge")
    return str(tmp_path / "bridge")


def test_it_prints_draws_and_writes(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--picture", str(tmp_path / "a.png"), "--json", str(tmp_path / "a.json")]
    monkeypatch.setattr(sys, "argv", ["world_arithmetic", folder, "--queries", "12", "--examples", "3", *files])
    world_arithmetic.main()
    out = capsys.readouterr().out
    assert "12 queries among 384 scenes of one object, chance 0.0026" in out
    assert out.count(" = ") == 3
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["scores"].keys() == {"scene - old + new", "the scene alone", "the new word alone"}
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.size == (2 * 96 + 216, 3 * 104 + 8)
        assert sheet.getextrema() != ((255, 255),) * 3


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nowhere"], "nowhere: "),
        (["nowhere", "--json", "/proc/x/y"], "/proc/x: cannot write there"),
        (["BRIDGE", "--space", "branch"], "connectors: expected one connector with a text branch"),
    ],
)
def test_failures_are_one_line(
    arguments: list[str], line: str, folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [folder if each == "BRIDGE" else each for each in arguments]
    monkeypatch.setattr(sys, "argv", ["world_arithmetic", *given])
    with pytest.raises(SystemExit) as ended:
        world_arithmetic.main()
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(line)
    assert len(err.splitlines()) == 1
