"""``mmbridge data check`` and ``pack`` as a user meets them: what is printed, and how they end."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import webdataset

from mmbridge.cli.app import run
from tests.data.pictures import encoded, noise, write_lines
from tests.tiny_bridge import tiny_recipe


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
