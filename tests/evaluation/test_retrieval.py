"""A run from source to report: its pool, its scores against loops, what fails, several processes, the command line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmbridge.bridge import Bridge
from mmbridge.cli.app import run
from mmbridge.data.formats import open_source
from mmbridge.data.record import Record
from mmbridge.data.sample import Medium, Sample, conversation
from mmbridge.data.sources import RecordSource
from mmbridge.data.world.items import ItemRecords
from mmbridge.data.world.source import WorldSource
from mmbridge.errors import DataError
from mmbridge.evaluation.controls import ShuffledMedia
from mmbridge.evaluation.flops import executed_flops
from mmbridge.evaluation.pool import pooled
from mmbridge.evaluation.report import Report
from mmbridge.evaluation.retrieval import retrieve
from mmbridge.ranks import ALONE, Ranks, together
from mmbridge.recipe import Recipe
from mmbridge.spaces import shown, space_of
from tests import processes
from tests.objectives.test_pairs import recipe
from tests.tiny_bridge import COLOURS


def picture(number: int) -> Image.Image:
    image = Image.new("RGB", (40, 32), COLOURS[number % 8])
    image.paste(COLOURS[(number // 8 + 1) % 8], (0, 0, 12, 20))
    return image


def records(*, broken: bool = False) -> list[Record]:
    """Twelve pictures; the last sample shows the first once more, and four captions are those of others."""
    found = [
        Record(
            str(number),
            Medium("image", picture(number), str(number)),
            f"a {COLOURS[number % 4]} one" + " or more" * (number // 8),
            references=(f"number {number}, as it happens",),
        )
        for number in range(12)
    ]
    found.append(Record("again", Medium("image", picture(0), "again"), "the first, told anew"))
    if broken:
        found.insert(3, Record("broken", Medium("image", b"no image", "broken"), "a broken one"))
        found.insert(5, Record("wordless", Medium("image", picture(20), "wordless"), "the text holds <image> itself"))
    return found


def source(**changes: Any) -> RecordSource:
    return RecordSource(records(**changes), "caption")


@pytest.fixture(scope="module")
def bridge(parts: Path) -> Bridge:
    return Bridge(recipe(parts))


@pytest.mark.parametrize("name", ["branch", "llm"])
def test_scores_are_those_of_a_loop_over_single_media_and_texts(name: Any, bridge: Bridge) -> None:
    report, space = retrieve(bridge, source(), name, batch_size=5), space_of(bridge, name)
    texts = list(dict.fromkeys(text for each in records() for text in (each.text, *each.references) if text))
    own = [{each.text, *each.references} for each in records()[:12]]
    own[0] |= {"the first, told anew"}
    assert report.about == {"space": space.about, "media": 12, "texts": len(texts)}
    assert len(texts) == 21  # twelve references, one told anew, eight captions: four are right for two media
    near = np.zeros((12, len(texts)))
    for row, record in enumerate(records()[:12]):
        assert record.medium is not None
        medium = space.media(bridge.collate()([shown(record.id, record.medium)]))[0]
        for column, text in enumerate(texts):
            near[row, column] = float((medium @ space.texts([space.ids(text, "t")])[0]).max())
    right = np.array([[text in said for text in texts] for said in own])
    for way, scores, true in (("image_to_text", near, right), ("text_to_image", near.T, right.T)):
        ranks = []
        for each, good in zip(scores, true, strict=True):
            ranks.append(1 + int((each[~good] >= each[good].max()).sum()))
        for k in (1, 5, 10):
            assert report.metrics[f"recall@{k}/{way}"].value == pytest.approx(np.mean(np.array(ranks) <= k))
        assert report.metrics[f"median_rank/{way}"].value == np.median(ranks)
    assert [row.id for row in report.rows] == [str(number) for number in range(12)]
    assert [row.prediction for row in report.rows] == [texts[best] for best in near.argmax(axis=1)]
    assert set(report.rows[0].truth["references"]) == own[0]
    assert report.rows[0].more["texts"][-1]["text"] == "the first, told anew"
    assert report.rows[4].more["texts"][0]["prediction"] == str(near[:, texts.index("a red one")].argmax())
    assert report.perceptual_tokens == 5
    assert report.chance["recall@1/text_to_image"] == pytest.approx(right.sum(axis=0).mean() / 12)


def test_batches_and_limits(bridge: Bridge) -> None:
    whole, one = (retrieve(bridge, source(), "branch", batch_size=size) for size in (32, 1))
    assert {**whole.to_dict(), "seconds": 0} == {**one.to_dict(), "seconds": 0}
    assert whole.rows == one.rows
    assert retrieve(bridge, source(), "branch", limit=4).n == 4


def test_what_cannot_be_read_is_reported_and_the_rest_is_scored(bridge: Bridge) -> None:
    report, whole = retrieve(bridge, source(broken=True), "llm"), retrieve(bridge, source(), "llm")
    assert report.metrics == whole.metrics
    assert report.rows == whole.rows
    assert [(failure.id, failure.error.split(": ")[0]) for failure in report.failed] == [
        ("broken", "sample broken"),
        ("wordless", "sample wordless"),
    ]
    nothing = retrieve(bridge, RecordSource(records(broken=True)[3:4], "caption"), "llm")
    assert (nothing.n, nothing.metrics, len(nothing.failed), nothing.flops) == (0, {}, 1, None)


class Listed(list[Sample]):
    name = "a list"


@pytest.mark.parametrize(
    ("media", "truth", "line"),
    [
        (1, {"answers": ["x"]}, "^s: expected a caption or references in its truth, found neither"),
        (0, {"caption": "x"}, "^s: expected one medium, found 0"),
        (2, {"caption": "x"}, "^s: expected one medium, found 2"),
    ],
)
def test_a_sample_that_does_not_fit_is_an_error(media: int, truth: Any, line: str, bridge: Bridge) -> None:
    shows = [Medium("image", picture(number)) for number in range(media)]
    sample = Sample("s", conversation(("user", (*shows, "what?")), ("assistant", ("that",))), truth)
    with pytest.raises(DataError, match=line):
        retrieve(bridge, Listed([sample]))
    with pytest.raises(DataError, match="at least one sample"):
        retrieve(bridge, Listed([]))


def test_flops_are_those_that_run(bridge: Bridge) -> None:
    """All media and texts are counted here, none scaled: as many as a run in one batch executes."""
    made = retrieve(bridge, source(), "branch", count_flops=False)
    assert (made.flops, made.flops_note) == (None, "not counted")
    found = retrieve(bridge, source(), "branch").flops
    assert found == executed_flops(lambda: retrieve(bridge, source(), "branch", count_flops=False))


def shared(parts: str) -> Any:
    """The report of all, and which batches this process made."""
    with together() as ranks:
        return reported(Bridge(recipe(Path(parts))), ranks)


def reported(bridge: Bridge, ranks: Ranks) -> Any:
    report = retrieve(bridge, source(broken=True), "branch", batch_size=3, ranks=ranks)
    rows = [[row.id, row.prediction, row.perceptual_tokens, dict(row.more)] for row in report.rows]
    return json.loads(json.dumps([{**report.to_dict(), "seconds": 0}, rows]))


@pytest.mark.slow
def test_processes_share_the_work(parts: Path, bridge: Bridge, tmp_path: Path) -> None:
    assert processes.together(shared, str(parts), folder=tmp_path) == reported(bridge, ALONE)


def test_a_process_without_a_share(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two makes what the first does not, and the two together are all."""
    space = space_of(bridge, "branch")
    monkeypatch.setattr(Ranks, "texts", lambda self, text: [text])
    monkeypatch.setattr(Ranks, "rows", lambda self, tensor: [tensor])
    monkeypatch.setattr("mmbridge.evaluation.pool._of_all", lambda own, ranks: {n: own.get(n, 5) for n in range(12)})
    parts = [pooled(bridge, space, source(), None, 100, Ranks(rank, 2)) for rank in range(2)]
    assert [len(each.media) for each in parts] == [12, 0]
    assert [len(each.texts) for each in parts] == [21, 0]
    assert parts[1].media.shape[1:] == space.shape


@pytest.mark.parametrize("name", ["branch", "llm"])
def test_vectors_are_media_as_images_are(name: Any) -> None:
    bridge = Bridge(Recipe.load("item-language-model", "variant=world"))
    report = retrieve(bridge, RecordSource(ItemRecords("test", 0), "caption"), name, limit=20, count_flops=False)
    assert (report.n, report.failed) == (20, ())
    assert "recall@1/vector_to_text" in report.metrics


# --- the command line ---


@pytest.fixture(scope="module")
def folder(bridge: Bridge, tmp_path_factory: pytest.TempPathFactory) -> str:
    made = tmp_path_factory.mktemp("bridge") / "bridge"
    bridge.save_pretrained(made)
    return str(made)


def test_eval_writes_the_contracts_json(
    folder: str, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["eval", folder, str(parts / "data"), "--task", "retrieval", "--space", "branch", "--limit", "10"]
    assert run([*arguments, "--json", str(tmp_path / "r.json")]) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["task"], report["n"], report["failed"]) == ("retrieval", 8, [])  # two samples show media once more
    assert report["about"]["media"] == 8
    assert report["metrics"].keys() == report["intervals"].keys() == report["chance"].keys()
    assert report["chance"]["recall@1/text_to_image"] == pytest.approx(1 / 8)
    assert "recall@1/image_to_text" in (out := capsys.readouterr().out)
    assert "chance 0.125" in out
    rows = [json.loads(line) for line in (tmp_path / "r.json.rows.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    assert rows[0].keys() == {"id", "prediction", "truth", "kind", "rank", "texts"}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--task", "retrieval", "--beams", "3"], "--beams: expected none with --task retrieval, found 3"),
        (["--task", "retrieval", "--max-new-tokens", "5"], "--max-new-tokens: expected none with --task retrieval"),
        (["--task", "vqa", "--space", "llm"], "--space: expected none with --task vqa, found llm"),
    ],
)
def test_options_that_a_task_does_not_use_are_refused(
    options: list[str], line: str, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["eval", "nowhere", str(parts / "data"), *options]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert err.startswith(line)


# --- what a minute of training brings ---


def above_chance(report: Report, names: Sequence[str]) -> bool:
    return all(report.metrics[name].above(report.chance[name]) for name in names)


@pytest.mark.slow
def test_a_bridge_trained_for_a_minute_finds_what_it_has_not_seen(tmp_path: Path) -> None:
    """By assignment prediction on the embedded world; with everyone else's media it finds nothing."""
    objective = "stages.align.objectives=[{kind: assignment}]"
    chosen = Recipe.load("quickstart", objective, "stages.align.steps=120", "stages.align.validation=null")
    bridge = chosen.model_copy(update={"stages": chosen.stages[:1]}).train(out=tmp_path / "run")
    scenes = WorldSource("test", 200, 3, "caption")
    report = retrieve(bridge, scenes, batch_size=64, count_flops=False)
    names = ["recall@5/text_to_image", "recall@10/text_to_image", "recall@10/image_to_text"]
    assert above_chance(report, names)
    for way in ("image_to_text", "text_to_image"):
        assert report.metrics[f"median_rank/{way}"].high < report.chance[f"median_rank/{way}"]
    control = retrieve(bridge, ShuffledMedia(scenes), batch_size=64, count_flops=False)
    assert not any(above_chance(control, [name]) for name in names)


def test_a_folder_is_read_as_it_is(bridge: Bridge, parts: Path) -> None:
    """Sixteen files, eight of which are byte for byte the others."""
    report = retrieve(bridge, open_source(parts / "data", task="caption"), "llm", count_flops=False)
    assert report.about["media"] == 8
    assert report.about["texts"] == 16
