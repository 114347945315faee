"""The study of alignment in small: every bridge measured, claims judged by their rules, the page written; its parts."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import alignment_claims
import alignment_study
import numpy as np
import pytest
import record
import torch
import yaml
from skipped import without_blocks

from mmbridge import Bridge
from mmbridge.cli.app import run
from mmbridge.llm.sites import Site, read_states
from tests.tiny_bridge import tiny_recipe


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The study's command for two variants of a few steps, in this process."""
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(alignment_study, "workers", ThreadPoolExecutor)
    monkeypatch.setattr(alignment_study, "SCENES", {"caption": 6, "vqa": 1, "pope": 2})
    monkeypatch.setattr(alignment_study, "ALIGNED", 40)
    raw = yaml.safe_load(alignment_study.RECIPE.read_text())
    raw["variants"] = {name: raw["variants"][name] for name in ("clip-linear", "mae-qformer")}
    raw["stages"] = [stage | {"steps": 2, "batch": 4} for stage in raw["stages"][:2]]
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(raw))
    command = ["alignment_study.py", "--recipe", str(tmp_path / "small.yaml"), "--at-once", "1", "--seeds", "0"]
    return [*command, "--out", str(tmp_path / "runs"), "--page", str(tmp_path / "page.html")]


@pytest.mark.slow
def test_all_bridges_are_measured_and_claims_judged(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", small)
    alignment_study.main()
    figures = json.loads((tmp_path / "alignment_study.json").read_text())["figures"]
    assert [*figures["clip-linear, seed 0"]["bridges"]] == ["0", "2", "4"]
    assert [
        claim["verdict"] in ("reproduces", "reproduces in part", "does not reproduce") for claim in figures["claims"]
    ] == [True] * 5
    said = capsys.readouterr().out
    assert all(claim["claim"] in said for claim in figures["claims"])
    text = (tmp_path / "page.html").read_text()
    assert "over 6 bridges" in text
    drawings = [part.split("</svg>")[0] + "</svg>" for part in text.split("<svg")[1:]]
    drawn = [ElementTree.fromstring(f"<svg{each}") for each in drawings]
    assert sum("aria-label" in each.attrib for each in drawn) == text.count("<figure>") == 6

    monkeypatch.setattr(alignment_study, "train", lambda *_, **__: pytest.fail("trained a second time"))
    alignment_study.main()


@pytest.mark.slow
def test_data_of_ones_own_without_known_facts(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Captions are judged by CIDEr, hallucination by POPE."""
    for task in ("caption", "vqa", "pope"):
        folder = tmp_path / "data" / task
        assert run(["data", "make-world", str(folder), "--split", "test", "--seed", "9", "--count", "40"]) == 0
        rows = [json.loads(row) for row in (folder / "metadata.jsonl").read_text().splitlines()]
        bare = [json.dumps({key: value for key, value in row.items() if key != "facts"}) for row in rows]
        (folder / "metadata.jsonl").write_text("\n".join(bare))
    monkeypatch.setattr("sys.argv", [*small, "--data", str(tmp_path / "data")])
    alignment_study.main()
    figures = json.loads((tmp_path / "alignment_study.json").read_text())["figures"]
    scores = figures["clip-linear, seed 0"]["bridges"]["4"]["scores"]
    assert "fact_f1" not in scores["caption"]
    told = figures["claims"][3]
    assert "captions, CIDEr" in told["rule"]
    assert "POPE" in told["rule"]
    assert not any("fact-F1" in name for claim in figures["claims"] for name in claim["figures"])
    page = (tmp_path / "page.html").read_text()
    assert "captions, CIDEr" in page
    assert "fact-F1" not in page + capsys.readouterr().out


def bridge(ima: float, f1: float) -> dict[str, Any]:
    """As much of a measured bridge as a correlation reads."""
    return {
        "curves": [{"score": "ima", "of": ["image", "text"], "values": [[ima - 0.1, 0, 0], [ima + 0.1, 0, 0]]}],
        "scores": {"caption": {"fact_f1": [f1, 0, 0]}},
    }


def test_correlations_are_over_bridges_with_intervals_over_variants() -> None:
    rows = [[bridge(0.1, 0.2), bridge(0.3, 0.5)], [bridge(0.2, 0.3), bridge(0.5, 0.9)], [bridge(0.4, 0.1)]]
    pairs = [
        [
            (alignment_claims.predictor(each, "IMA, all pairs"), alignment_claims.outcome(each, "captions, fact-F1"))
            for each in row
        ]
        for row in rows
    ]
    assert pairs[0] == pytest.approx(np.array([[0.1, 0.2], [0.3, 0.5]]))
    ranks = np.array([[1, 2], [3, 4], [2, 3], [5, 5], [4, 1]])
    closed = 1 - 6 * ((ranks[:, 0] - ranks[:, 1]) ** 2).sum() / (5 * 24)
    assert alignment_claims.correlation(pairs) == pytest.approx(closed)
    value, low, high = alignment_claims.resampled(pairs, alignment_claims.correlation)
    assert value == pytest.approx(closed)
    assert -1 <= low <= value <= high <= 1
    assert np.isnan(alignment_claims.correlation([[(1.0, 2.0)], [(1.0, 3.0)], [(1.0, 4.0)]]))


def test_tokens_that_pass_a_block_by_leave_as_they_came(tmp_path: Path) -> None:
    from mmbridge.alignment.told import told
    from mmbridge.data.formats import open_source

    made = Bridge(tiny_recipe(tmp_path))
    source = open_source(str(tmp_path / "data"), None, task="caption")
    context = made.spliced(made.collate()([told(source[index]) for index in range(3)]), "right")
    for perceptual in (True, False):
        found: dict[Site, torch.Tensor] = {}
        with without_blocks(made.llm, [1], perceptual=perceptual):
            read_states(made.llm, context, ["input", "block"], found.__setitem__)
        passed = context.perceptual if perceptual else ~context.perceptual
        before, after = found[Site("input", 0)], found[Site("block", 1)]
        assert torch.equal(before[passed], after[passed])
        assert not torch.isclose(before[~passed], after[~passed]).all(dim=-1).any()


def test_a_bridge_that_states_nothing_is_not_free_of_hallucination() -> None:
    silent, right = ({"scores": {"caption": {"chair_i": [0.0], "fact_f1": [f1]}}} for f1 in (0.0, 1.0))
    assert np.isnan(alignment_claims.outcome(silent, "hallucinated facts (CHAIR-i)"))
    assert alignment_claims.outcome(right, "hallucinated facts (CHAIR-i)") == 0
    pairs = [[(1.0, 2.0), (2.0, 3.0), (3.0, 4.0), (4.0, float("nan"))]]
    assert alignment_claims.correlation(pairs) == pytest.approx(1)
