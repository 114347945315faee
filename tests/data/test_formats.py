"""Four formats, one reader: told apart by looking, and one clear line for everything that is none."""

import json
import pickle
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from mmbridge.data.config import DataConfig
from mmbridge.data.formats import open_source
from mmbridge.data.media import open_image
from mmbridge.data.record import Task
from mmbridge.data.sample import Sample
from mmbridge.data.sources import RecordSource
from mmbridge.errors import DataError, MediaError
from tests.data.pictures import encoded, noise, write_lines

LLAVA = {
    "id": "a1",
    "image": "img/a.png",
    "conversations": [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "noise"}],
}
CHAT = {
    "messages": [
        {"role": "user", "content": [{"type": "image", "path": "img/a.png"}, {"type": "text", "text": "what?"}]},
        {"role": "assistant", "content": "noise"},
    ]
}
ROW = {"file_name": "img/a.png", "text": "noise", "questions": [{"question": "q?", "answers": ["a"], "kind": "shape"}]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "img").mkdir()
    (tmp_path / "img/a.png").write_bytes(encoded(noise(1)))
    return tmp_path


def samples(source: RecordSource) -> list[Sample]:
    return [source[index] for index in range(len(source))]


def one_line(path: Path | str, *args: Any, error: type[DataError] | type[MediaError] = DataError, **kw: Any) -> str:
    with pytest.raises(error) as caught:
        samples(open_source(path, *args, **kw))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def dialogue(sample: Sample) -> list[Any]:
    """Roles and content, media by their pixels."""
    return [
        (message.role, [part if isinstance(part, str) else open_image(part).tobytes() for part in message.content])
        for message in sample.messages
    ]


def test_the_same_exchange_in_every_format_is_the_same_sample(folder: Path) -> None:
    expected = [("user", [noise(1).tobytes(), "what?"]), ("assistant", ["noise"])]
    inline = json.loads(json.dumps(CHAT))
    inline["messages"][0]["content"][0] = {"type": "image", "base64": b64encode(encoded(noise(1))).decode()}
    marked = {"images": ["img/a.png"], "messages": [{"role": "user", "content": "<image>\nwhat?"}, CHAT["messages"][1]]}
    for path in (
        write_lines(folder / "chat.jsonl", [CHAT]),
        write_lines(folder / "inline.jsonl", [inline]),
        write_lines(folder / "marked.jsonl", [marked]),
        write_lines(folder / "llava.jsonl", [LLAVA]),
        write_lines(folder / "chat.json", ["[", json.dumps(CHAT), "]"]),
        write_lines(folder / "llava.json", ["[", json.dumps(LLAVA), "]"]),
        write_lines(folder / "rows/metadata.jsonl", [{"file_name": "b.png", "conversations": LLAVA["conversations"]}]),
    ):
        (folder / "rows/b.png").parent.mkdir(exist_ok=True)
        (folder / "rows/b.png").write_bytes(encoded(noise(1)))
        found = samples(open_source(path))
        assert [dialogue(sample) for sample in found] == [expected], path


def test_a_metadata_folder(folder: Path) -> None:
    write_lines(folder / "metadata.jsonl", [ROW, {**ROW, "id": "two", "facts": [["circle", "red"]]}])
    caption = samples(open_source(folder, task="caption", prompts=["Say."]))
    assert [sample.id for sample in caption] == ["img/a.png", "two"]
    assert dialogue(caption[0]) == [("user", [noise(1).tobytes(), "Say."]), ("assistant", ["noise"])]
    assert caption[1].truth["facts"] == (("circle", "red"),)
    assert [sample.id for sample in samples(open_source(folder / "metadata.jsonl", task="vqa"))] == [
        "img/a.png/q0", "two/q0",
    ]  # fmt: skip


def test_ids_of_rows_without_one_name_file_and_line(folder: Path) -> None:
    assert samples(open_source(write_lines(folder / "c.jsonl", [CHAT, "", CHAT])))[1].id == "c.jsonl:3"


def test_text_only_conversations_stand_beside_others(folder: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}
    source = open_source(write_lines(folder / "c.jsonl", [CHAT, chat]))
    assert [len(sample.media) for sample in samples(source)] == [1, 0]


def test_media_come_from_media_root_when_it_is_given(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    away = tmp_path_factory.mktemp("away")
    path = write_lines(away / "llava.json", ["[", json.dumps(LLAVA), "]"])
    assert open_image(open_source(path, media_root=folder)[0].media[0]).size == (8, 8)
    absolute = {**LLAVA, "image": str(folder / "img/a.png")}
    path = write_lines(away / "absolute.jsonl", [absolute])
    assert f"absolute.jsonl:1: expected media inside {away}, found" in one_line(path)
    assert open_image(open_source(path, media_root="/")[0].media[0]).size == (8, 8)


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd", "img/../../a.png"])
def test_data_files_may_not_point_outside(folder: Path, name: str) -> None:
    metadata = write_lines(folder / "metadata.jsonl", [ROW, {**ROW, "file_name": name}])
    assert one_line(folder).startswith(f"{metadata}:2: expected media inside {folder}, found {name!r}")
    llava = write_lines(folder / "l.jsonl", [{**LLAVA, "image": name}])
    assert one_line(llava).startswith(f"{llava}:1: expected media inside {folder}, found {name!r}")


def test_a_missing_medium_is_found_when_used_and_names_file_and_line(folder: Path) -> None:
    write_lines(folder / "metadata.jsonl", [ROW, {**ROW, "file_name": "img/none.png"}])
    source = open_source(folder, task="caption")
    with pytest.raises(MediaError, match=rf"^img/none.png \({folder}/metadata.jsonl:2\): expected an image, found no"):
        open_image(source[1].media[0])


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ('{"file_name": "img/a.png", ', ":2: expected JSON, found an error in it"),
        ({"text": "no name"}, ":2: expected a column file_name, found nothing"),
        ({"file_name": 3, "text": "x"}, ":2: expected a column file_name, found 3"),
        ({"file_name": "img/a.png"}, ":2: expected one of the columns text, caption, questions"),
        ({**ROW, "text": 3}, ":2: text: expected text, found 3"),
        ({**ROW, "references": "x"}, ":2: references: expected a list, found 'x'"),
        ({**ROW, "facts": ["x"]}, ":2: facts: expected lists of text, found 'x'"),
        ({**ROW, "questions": ["x"]}, ":2: questions: expected question, answers and kind, found 'x'"),
        ({**ROW, "questions": [{"question": "q?"}]}, ":2: answers: expected a list of at least one, found nothing"),
        ({**ROW, "questions": [{"answers": ["a"]}]}, ":2: question: expected text, found nothing"),
    ],
)
def test_a_bad_row_of_a_folder(folder: Path, row: dict[str, Any] | str, line: str) -> None:
    write_lines(folder / "metadata.jsonl", [ROW, row])
    assert one_line(folder).startswith(f"{folder / 'metadata.jsonl'}{line}")


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"image": "img/a.png"}, ":2: expected a column conversations, found image"),
        ({**LLAVA, "image": 3}, ":2: image: expected a path or a list of paths, found 3"),
        ({**LLAVA, "image": ["img/a.png"] * 2}, ":2: expected as many <image> as images, found 1 <image> and 2 images"),
        ({"conversations": LLAVA["conversations"]}, ":2: expected as many <image> as images, found 1 <image> and 0"),
        ({**LLAVA, "conversations": "x"}, ":2: conversations: expected a list of turns, found 'x'"),
    ],
)
def test_a_bad_row_of_llava(folder: Path, row: dict[str, Any], line: str) -> None:
    path = write_lines(folder / "llava.jsonl", [LLAVA, row])
    assert one_line(path).startswith(f"{path}{line}")


def test_what_is_no_data_set(folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert one_line(tmp_path / "none").endswith("none: expected a data set, found no such file or folder")
    assert f"{empty}: expected metadata.jsonl, state.json, .tar or .parquet files, found an empty folder" in one_line(
        empty
    )
    assert "img: expected metadata.jsonl, state.json, .tar or .parquet files, found a.png; name" in one_line(
        folder / "img"
    )
    assert "a.png: expected WebDataset .tar shards, a folder with metadata.jsonl" in one_line(folder / "img/a.png")
    other = write_lines(folder / "other.jsonl", [{"prompt": "x"}])
    assert one_line(other) == f"{other}:1: expected a column messages or conversations or file_name, found prompt"
    for url in ("pipe:curl x", "file:///etc/{0..1}.tar", "ftp://x.org/0.tar", "s3://x/0.tar"):
        assert "expected http or https and a host, found " in one_line(url)


def test_paths_that_cannot_be(folder: Path) -> None:
    assert one_line("x" * 5000).endswith("cannot be read (File name too long)")
    assert "expected a brace pattern such as {000..009}, found a fault in it" in one_line(f"{folder}/{{0..1.tar")


def test_a_folder_one_level_up_is_pointed_out(folder: Path) -> None:
    write_lines(folder / "train/metadata.jsonl", [ROW])
    assert one_line(folder).endswith("found train/metadata.jsonl; name that folder")


def test_a_given_format_is_held_to(folder: Path) -> None:
    path = write_lines(folder / "c.jsonl", [CHAT])
    assert one_line(path, "llava") == f"{path}:1: expected a column conversations, found messages"
    strange = write_lines(folder / "strange.txt", [CHAT])
    assert len(open_source(strange, "chat")) == 1
    assert "expected .tar shards, found c.jsonl" in one_line(folder, "webdataset")


def test_sources_can_be_sent_to_workers(folder: Path) -> None:
    write_lines(folder / "metadata.jsonl", [ROW])
    source = open_source(folder, task="caption")
    assert dialogue(pickle.loads(pickle.dumps(source))[0]) == dialogue(source[0])


def test_bad_rows_can_be_left_to_on_bad_sample(folder: Path) -> None:
    bad = {**LLAVA, "image": []}
    path = write_lines(folder / "llava.jsonl", [LLAVA, bad, LLAVA])
    tasks: tuple[Task, ...] = ("all", "messages", "caption", "vqa")
    for task in tasks:
        source = open_source(path, task=task, late=True)
        assert len(source) == 3
        assert [source[0].id[:2], source[2].id[:2]] == ["a1", "a1"]
        with pytest.raises(DataError, match=rf"^{path}:2: expected as many <image> as images, found 1 <image> and 0"):
            source[1]
    lines = {"mix": [{"kind": "files", "path": str(path)}]}
    with pytest.raises(DataError, match=f"^{path}:2"):
        DataConfig.model_validate(lines).build(0)
    assert len(DataConfig.model_validate({**lines, "on_bad_sample": {"skip_up_to": 0.4}}).build(0)) == 3
