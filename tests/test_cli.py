"""The command line's contract: output, exit codes, one line for every failure.

A stand-in takes the bridge's place here, so that only the command line is under test; what real bridges say is tested
with the bridge.
"""

import json
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmbridge.cli.app import run
from mmbridge.data.sample import Medium
from mmbridge.errors import BridgeError


class StandIn:
    """Answers with the size of what it is shown."""

    calls: list[Any] = []  # noqa: RUF012 - one list for all, emptied by the fixture

    @classmethod
    def from_pretrained(cls, path: str, *, device: str | None = None, dtype: str | None = None) -> "StandIn":
        if path == "nowhere":
            raise BridgeError(path, "no such bridge")
        cls.calls.append((path, device, dtype))
        return cls()

    def caption(self, media: Sequence[Medium], prompt: str | None, options: Any) -> list[Any]:
        self.calls.append((prompt, options, len(media)))
        return [self._answer(f"{medium.source.size}") for medium in media]  # type: ignore[union-attr]

    def ask(self, media: Sequence[Medium], question: str, options: Any) -> Any:
        self.calls.append((question, options, len(media)))
        return self._answer(f"{len(media)} images")

    def stream(self, media: Sequence[Medium], question: str, options: Any) -> Iterator[str]:
        yield from ("two ", "pieces")

    @staticmethod
    def _answer(text: str) -> Any:
        return types.SimpleNamespace(text=text, perceptual_tokens=9, kept_tokens=9, seconds=0.5)


@pytest.fixture(autouse=True)
def bridge(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    module = types.ModuleType("mmbridge.bridge")
    module.Bridge = StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mmbridge.bridge", module)
    StandIn.calls = []
    return StandIn


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    for index in range(3):
        Image.new("RGB", (10 + index, 20)).save(tmp_path / f"{index}.png")
    return [str(tmp_path / f"{index}.png") for index in range(3)]


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


# --- caption ---


def test_one_file_gives_its_text(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["caption", "bridge", images[0]]) == 0
    assert capsys.readouterr() == ("(10, 20)\n", "")


def test_several_files_are_named(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["caption", "bridge", *images]) == 0
    assert capsys.readouterr().out.splitlines()[1] == f"{images[1]}: (11, 20)"


def test_json_is_one_object_a_file(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["caption", "bridge", *images[:2], "--json", "--prompt", "What is it?"]) == 0
    first, second = lines(capsys.readouterr().out)
    assert second["media"] == [images[1]]
    assert first == {
        "media": [images[0]],
        "question": "What is it?",
        "text": "(10, 20)",
        "perceptual_tokens": 9,
        "kept_tokens": 9,
        "seconds": 0.5,
    }


def test_options_reach_the_bridge(images: list[str]) -> None:
    options = ["--device", "cpu", "--dtype", "bfloat16", "--batch-size", "2", "--max-new-tokens", "5"]
    assert run(["caption", "bridge", *images, *options, "--temperature", "0.5", "--seed", "3"]) == 0
    assert StandIn.calls[0] == ("bridge", "cpu", "bfloat16")
    assert [call[2] for call in StandIn.calls[1:]] == [2, 1]
    sampling = StandIn.calls[1][1]
    assert (sampling.max_new_tokens, sampling.beams, sampling.temperature, sampling.seed) == (5, 1, 0.5, 3)


def test_a_folder_stands_for_its_images(images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("not an image")
    assert run(["caption", "bridge", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_bad_file_among_good_ones(images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("words")
    assert run(["caption", "bridge", images[0], str(bad), images[1], "--json"]) == 1
    out, err = capsys.readouterr()
    first, broken, last = lines(out)
    assert (first["text"], last["text"]) == ("(10, 20)", "(11, 20)")
    assert (broken["media"], broken["error"]) == ([str(bad)], err.strip())
    assert str(bad) in broken["error"]


def png_header(width: int, height: int) -> bytes:
    """The start of a PNG of that size, and nothing more."""
    from io import BytesIO
    from struct import pack
    from zlib import crc32

    buffer = BytesIO()
    Image.new("1", (1, 1)).save(buffer, "PNG")
    header = b"IHDR" + pack(">II", width, height) + buffer.getvalue()[24:29]
    return buffer.getvalue()[:8] + pack(">I", 13) + header + pack(">I", crc32(header)) + buffer.getvalue()[33:]


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "truncated", "huge", "no media"])
def test_bad_media_are_one_line_and_exit_2(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "picture.jpg"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("just words")
    elif kind == "truncated":
        Image.effect_noise((200, 200), 50).save(path)
        path.write_bytes(path.read_bytes()[:1000])
    elif kind == "huge":
        path.write_bytes(png_header(20_000, 20_000))
    elif kind == "no media":
        path.mkdir()
    for verb in (["caption", "bridge", str(path)], ["ask", "bridge", str(path), "-q", "What?"]):
        assert run(verb) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"{path}: ")
        assert len(err.splitlines()) == 1
    assert StandIn.calls == [], "nobody waits for a bridge to load to learn that a file is bad"


# --- ask ---


def test_all_files_form_one_question(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", "bridge", *images, "-q", "How many?", "--json"]) == 0
    (answer,) = lines(capsys.readouterr().out)
    assert (answer["media"], answer["question"], answer["text"]) == (images, "How many?", "3 images")


def test_stream_prints_pieces(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", "bridge", images[0], "-q", "What?", "--stream"]) == 0
    assert capsys.readouterr().out == "two pieces\n"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--stream", "--json"], "--stream: cannot be combined with --json"),
        (["--stream", "--beams", "2"], "--stream: expected --beams 1, found 2"),
        (["--beams", "2", "--temperature", "1"], "--beams: expected 1 with --temperature 1, found 2"),
        (["--beams", "0"], "mmbridge ask: Invalid value for"),
        (["--dtype", "int8"], "mmbridge ask: Invalid value for"),
    ],
)
def test_options_that_do_not_fit(
    options: list[str], expected: str, images: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["ask", "bridge", images[0], "-q", "What?", *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith(expected)
    assert len(err.splitlines()) == 1


# --- failures of every verb ---


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "quickstrat"], "quickstrat: unknown recipe; did you mean 'quickstart'?"),
        (["train", "nowhere/x.yaml"], "nowhere/x.yaml: no such file"),
        (["train", "quickstart", "stages.0.optim.lrr=1"], "quickstart.yaml: stages.0.optim.lrr: unknown key; did you"),
        (["train", "quickstart", "--stage", "alig"], "quickstart: stage: expected one of align, instruct, found"),
        (["train", "quickstart", "--out", "/proc/runs"], "/proc/runs: cannot write there: "),
        (["info", "quickstrat"], "quickstrat: unknown recipe; did you mean 'quickstart'?"),
        (["export", "nowhere", "/proc/x"], "/proc/x: cannot write there: "),
        (["eval", "bridge", "nowhere.json", "--json", "/proc/x/y.json"], "/proc/x: cannot write there"),
        (["data", "make-world", "/proc/x"], "/proc/x: cannot write there"),
        (["caption"], "mmbridge caption: Missing argument"),
        (["dance"], "mmbridge: No such command 'dance'."),
        (["train", "quickstart", "--prune", "x"], "mmbridge train: No such option: --prune"),
    ],
)  # fmt: skip
def test_one_line_and_exit_2(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(expected)
    assert len(err.splitlines()) == 1


def test_an_unknown_bridge(images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["caption", "nowhere", images[0]]) == 2
    assert capsys.readouterr().err == "nowhere: no such bridge\n"


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files cannot be made under a file, whoever runs this; root may write to what is read-only."""
    (tmp_path / "file").touch()
    assert run(["train", "quickstart", "--out", str(tmp_path / "file" / "run")]) == 2
    assert capsys.readouterr().err == f"{tmp_path}/file/run: cannot write there: not a directory\n"


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Makes the bridge fail in a way nobody thought of; returns where faults are recorded."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a\nmultiline\nfault")

    monkeypatch.setattr(StandIn, "caption", fail)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MMBRIDGE_DEBUG", raising=False)
    return tmp_path / "cache" / "mmbridge"


def test_an_internal_fault(broken: Path, images: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["caption", "bridge", images[0]]) == 1
    err = capsys.readouterr().err
    (log,) = broken.glob("*.log")
    assert err == f"internal fault: ZeroDivisionError: a multiline fault; traceback in {log}\n"
    assert "Traceback (most recent call last)" in log.read_text()


def test_debugging_shows_the_traceback(
    broken: Path, images: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMBRIDGE_DEBUG", "1")
    assert run(["caption", "bridge", images[0]]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    monkeypatch.setenv("MMBRIDGE_DEBUG", "0")
    assert run(["caption", "bridge", images[0]]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_fault_where_nothing_can_be_recorded(
    broken: Path, images: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc")
    assert run(["caption", "bridge", images[0]]) == 1
    log = Path(capsys.readouterr().err.strip().split("traceback in ")[1])
    assert "ZeroDivisionError" in log.read_text()
    log.unlink()


def test_a_full_disk_is_the_users(
    images: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(StandIn, "caption", full)
    assert run(["caption", "bridge", images[0]]) == 2
    assert capsys.readouterr().err == "somewhere: no space left on device\n"


def test_an_interrupt(images: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(StandIn, "caption", interrupt)
    assert run(["caption", "bridge", images[0]]) == 130
    assert capsys.readouterr().err == "interrupted\n"


# --- the rest ---


def test_the_launchers_rank_is_accepted_and_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--local_rank=1", "recipes"]) == 0
    assert run(["--help"]) == 0
    assert "rank" not in capsys.readouterr().out.split("Usage")[1]


def test_no_arguments_show_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert "Usage: mmbridge" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from mmbridge import __version__

    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes", "--json"]) == 0
    found = {line["name"]: line for line in lines(capsys.readouterr().out)}
    assert found["quickstart"]["stages"] == ["align", "instruct"]
    assert "lora" in found["llava-1.5"]["variants"]
    assert run(["recipes"]) == 0
    assert all(name in capsys.readouterr().out for name in [*found][:1])


def test_info_of_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", "llava-1.5", "variant=13b"]) == 0
    out = capsys.readouterr().out
    assert "lmsys/vicuna-13b-v1.5" in out
    assert "32 × 8" in out


def test_a_reader_that_leaves_is_no_fault() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "mmbridge", "info", "llava-more"]
    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_ctrl_c_from_outside_ends_in_130(tmp_path: Path) -> None:
    """A whole process, interrupted while it waits for a bridge to load."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    code = (
        "import sys, types, time\n"
        "module = types.ModuleType('mmbridge.bridge')\n"
        "class Bridge:\n"
        "    @staticmethod\n"
        "    def from_pretrained(*a, **k):\n"
        "        print('loading', flush=True); time.sleep(60)\n"
        "module.Bridge = Bridge\n"
        "sys.modules['mmbridge.bridge'] = module\n"
        f"sys.argv = ['mmbridge', 'caption', 'bridge', {str(tmp_path / 'a.png')!r}]\n"
        "from mmbridge.cli import main\n"
        "main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job of a shell ignores it
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.strip() == "interrupted"
