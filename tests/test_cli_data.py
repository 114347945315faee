"""``mmbridge data check``, ``pack`` and ``cache`` as a user meets them: what is printed, and how they end."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import webdataset

from mmbridge.cli.app import run
from mmbridge.cli.cache import _show_gains
from mmbridge.feature_gain import Gain
from tests.data.parquets import written
from tests.data.pictures import encoded, noise, write_lines
from tests.tiny_bridge import tiny_data, tiny_recipe, tiny_stage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"file_name": f"{n}.png", "text": f"a text of {n}" + " and more" * n} for n in range(6)]
    write_lines(tmp_path / "in/metadata.jsonl", rows)
    for n in range(6):
        (tmp_path / f"in/{n}.png").write_bytes(encoded(noise(n, 8 + n)))
    return tmp_path / "in"


def test_a_good_data_set(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", str(folder)]) == 0
    out, err = capsys.readouterr()
    found = [line.split() for line in out.splitlines()]
    assert err == ""
    for words in (["rows", "6"], ["bad", "0"], ["images", "6"], ["text", "only", "0"], ["samples:", "caption", "6"]):
        assert words in found
    assert ["width", "8", "10.5", "10.5", "12.75", "13"] in found


def test_bad_rows_are_listed_counted_and_end_in_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"file_name": "gone.png", "text": "x"}] * 25 + [{"file_name": "0.png", "text": 3}]
    path = write_lines(folder / "metadata.jsonl", rows)
    assert run(["data", "check", str(folder), "--workers", "0"]) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == f"gone.png ({path}:1): expected an image, found no such file"
    assert lines[20] == "… and 6 more; --json lists all of them"
    assert ["25", "expected", "an", "image"] in [line.split() for line in lines]
    assert err == "26 of 26 rows have something wrong with them\n"
    assert run(["data", "check", str(folder), "--json"]) == 1
    (report,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (report["bad"], len(report["problems"]), report["sizes"]) == (26, 26, None)
    assert report["kinds"] == {"expected an image": 25, "text: expected text": 1}


def test_a_recipe_measures_every_sample(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(tiny_recipe(tmp_path / "parts").dump(), encoding="utf-8")
    command = ["data", "check", str(folder), "llm.max_length=60", "--recipe", str(recipe), "--stage", "align"]
    capsys.readouterr()  # making the parts may say something
    assert run([*command, "--json"]) == 1
    (report,) = map(json.loads, capsys.readouterr().out.splitlines())
    positions = report["positions"]
    bins = positions["histogram"]
    assert sum(count for _, _, count in bins) == 6
    assert (bins[0][0], bins[-1][1]) == (positions["min"], positions["max"])
    assert positions["min"] <= 60 < positions["max"]
    assert report["bad"] == report["kinds"]["expected at most 60 positions"] < 6
    assert report["sample"].startswith("sample 0.png: ")
    assert "<image × 16>" in report["sample"]
    assert "⟦" in report["sample"].partition("a text of 0")[0]
    assert run([*command, "--workers", "0"]) == 1
    out = capsys.readouterr().out
    assert "█" in out
    assert report["sample"] in out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["check", "nowhere"], "nowhere: expected a data set, found no such file or folder"),
        (["check", "x", "--stage", "align"], "--stage: expected a recipe that it belongs to, found none; name one"),
        (["check", "x", "seed=1"], "seed=1: expected a recipe that it belongs to, found none; name one with --recipe"),
        (["check", "DATA", "--recipe", "quickstrat"], "quickstrat: unknown recipe; did you mean 'quickstart'?"),
        (["check", "DATA", "--recipe", "quickstart", "--stage", "x"], "quickstart: stage: expected one of align, "),
        (["pack", "nowhere", "OUT"], "nowhere: expected a data set, found no such file or folder"),
        (["pack", "DATA", "DATA"], "DATA: expected an empty folder, found files in it; name another folder"),
        (["pack", "DATA", "OUT", "--format", "llava"], "DATA: expected a JSON file, found "),
        (["pack", "pipe:cat x", "OUT"], "pipe:cat x: expected http or https and a host, found pipe; download"),
    ],
)
def test_what_the_user_can_put_right_ends_in_2(
    folder: Path, tmp_path: Path, arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"DATA": str(folder), "OUT": str(tmp_path / "out")}
    assert run(["data", *(places.get(word, word) for word in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(line.replace("DATA", str(folder)))
    assert len(err.splitlines()) == 1


def test_pack_writes_shards_and_lists_what_it_leaves_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "pack", str(folder), str(tmp_path / "a"), "--per-shard", "4"]) == 0
    assert capsys.readouterr().out == f"6 records with 6 images written to 2 shards in {tmp_path}/a\n"
    shards = [str(path) for path in sorted((tmp_path / "a").iterdir())]
    theirs: list[Any] = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert [sample["png"] for sample in theirs] == [(folder / f"{n}.png").read_bytes() for n in range(6)]
    assert run(["data", "check", str(tmp_path / "a")]) == 0
    (folder / "3.png").unlink()
    capsys.readouterr()
    assert run(["data", "pack", str(folder), str(tmp_path / "b")]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"3.png ({folder}/metadata.jsonl:4): expected an image, found no such file\n")
    assert run(["data", "pack", str(folder), str(tmp_path / "b"), "--skip", "--json"]) == 1
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert (report["records"], report["shards"], report["images"], len(report["skipped"])) == (5, 1, 5, 1)
    assert err == "1 of 6 records left out\n"


def test_checking_without_a_recipe_loads_no_model(folder: Path) -> None:
    code = (
        "import sys; from mmbridge.cli.app import run; code = run(sys.argv[1:]); "
        "print([name for name in ('transformers', 'open_clip', 'timm', 'mmbridge.bridge') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, "data", "check", str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe of two stages, the second on half of the first one's files and on files of its own."""
    first = {"kind": "files", "path": "DATA", "task": "caption", "limit": 8, "weight": 8}
    own = [first, first | {"path": str(tmp_path / "own"), "weight": 3}]
    second = tiny_stage("instruct", script="instruct", data={"mix": own}, epochs=1, steps=None)
    tiny_data(tmp_path / "own", 3)
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_recipe(tmp_path / "parts", tiny_stage(steps=8), second).dump(), encoding="utf-8")
    for number in range(3):
        (tmp_path / f"own/{number:03d}.png").write_bytes(encoded(noise(number, 40)))
    return path


def test_features_are_cached_added_to_and_trained_from(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "f"
    command = ["data", "cache", str(recipe), "--out", str(folder)]
    capsys.readouterr()  # making the parts may say something
    assert run([*command, "--stage", "align"]) == 0
    out = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["align", "32", "8", "4.0"] in out
    assert ["image", "8", "8", "1"] in [line[:4] for line in out]
    assert out[-1] == ["train", "with", f"features.path={folder}"]
    assert run([*command, "--json", "--workers", "0"]) == 0
    (report,) = map(json.loads, capsys.readouterr().out.splitlines())
    sizes = sum(path.stat().st_size for path in (folder / "image").glob("0*.safetensors"))
    assert report["encoders"] == {"image": {"media": 11, "new": 3, "shards": 2, "bytes": sizes}}
    assert report["seen"]["instruct"] == {"drawn": 12, "distinct": 11}
    assert set(report["gain"]) == {"align", "instruct"}
    assert min(report["gain"].values()) > 1
    command = ["train", str(recipe), "--out", str(tmp_path / "run"), f"features.path={folder}"]
    assert run([*command, "features.missing=raise"]) == 0
    told = json.loads((tmp_path / "run/stages/align/metrics.json").read_text())
    assert run(["train", str(recipe), "--out", str(tmp_path / "live"), "--stage", "align"]) == 0
    live = json.loads((tmp_path / "live/stages/align/metrics.json").read_text())
    assert told["needed_flops"] < live["needed_flops"]


def test_a_stale_cache_ends_in_2_and_is_made_anew_when_asked(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "cache", str(recipe), "--out", str(tmp_path / "f"), "--workers", "0", "--stage", "align"]
    assert run(command) == 0
    capsys.readouterr()
    assert run([*command, "encoders.image.layer=-2"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path}/f/image: expected features of {tmp_path}/parts/clip with layer -2, found them ")
    assert line.endswith("with layer -1; --anew replaces them; or name another --out")
    assert run([*command, "--dtype", "float32"]) == 2
    assert "expected features in float32, found them in bfloat16" in capsys.readouterr().err
    assert run([*command, "encoders.image.layer=-2", "--anew", "--json"]) == 0
    (report,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert report["encoders"]["image"]["new"] == 8
    assert run([*command, "--stage", "alin"]) == 2
    assert "did you mean 'align'" in capsys.readouterr().err


def test_media_left_out_of_a_cache_end_in_1(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "own/001.png"
    picture.write_bytes(picture.read_bytes()[:200])
    command = ["data", "cache", str(recipe), "--out", str(tmp_path / "f"), "--workers", "0", "--stage", "instruct"]
    assert run(command) == 2
    assert "001.png" in capsys.readouterr().err.splitlines()[-1]
    assert run([*command, "stages.instruct.data.on_bad_sample={skip_up_to: 0.5}"]) == 1
    out, err = capsys.readouterr()
    assert any(line.startswith("left out  ") and "001.png" in line for line in out.splitlines())
    assert err.splitlines()[-1] == "1 samples or media left out"


def test_parquet_from_the_first_look_to_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Checked, packed, cached and trained from; a damaged picture is found by each."""
    datasets = pytest.importorskip("datasets", reason="needs the extra hf")
    pictures: list[Any] = [{"bytes": encoded(noise(n, 40)), "path": None} for n in range(9)]
    columns = {"image": pictures, "text": [f"text {n}" for n in range(9)]}
    path = written(tmp_path / "x.parquet", columns, 2, image=datasets.Image())
    assert run(["data", "check", str(path), "--json"]) == 0
    (report,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (report["bad"], report["sizes"]["width"]["max"]) == (0, 40)
    assert run(["data", "pack", str(path), str(tmp_path / "packed"), "--per-shard", "4"]) == 0
    assert "9 records with 9 images written to 3 shards" in capsys.readouterr().out
    recipe = tmp_path / "tiny.yaml"
    stage = tiny_stage(steps=4, data={"mix": [{"kind": "files", "path": str(path), "task": "caption"}], "workers": 2})
    recipe.write_text(tiny_recipe(tmp_path / "parts", stage).dump(), encoding="utf-8")
    assert run(["data", "cache", str(recipe), "--out", str(tmp_path / "f")]) == 0
    assert run(["train", str(recipe), "--out", str(tmp_path / "live")]) == 0
    options = [f"features.path={tmp_path}/f", "features.missing=raise"]
    assert run(["train", str(recipe), "--out", str(tmp_path / "cached"), *options]) == 0
    pictures[3] = {"bytes": b"no picture", "path": None}
    written(path, columns, 2, image=datasets.Image())
    capsys.readouterr()
    assert run(["data", "check", str(path), "--format", "parquet"]) == 1
    assert f"{path}:3" in capsys.readouterr().out
    assert run(["train", str(recipe), "--out", str(tmp_path / "bad")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}:3): expected an image" in line
    assert (
        run(["train", str(recipe), "--out", str(tmp_path / "bad"), "stages.align.data.on_bad_sample={skip_up_to: 0.2}"])
        == 0
    )


def test_a_gain_too_small_to_be_worth_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    _show_gains({"align": Gain(encoders=4, rest=100), "instruct": Gain(encoders=100, rest=100), "none": Gain(0, 0)})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["align", "4%", "×", "1.04"],
        ["instruct", "50%", "×", "2.00"],
        ["none", "0%", "×", "1.00"],
    ]
    assert [line.split()[0] for line in lines[4:]] == ["align", "none"]
    assert "gains less than 5 %" in lines[4]
