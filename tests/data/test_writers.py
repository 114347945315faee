"""What is written is read back the same, by us and by those whose formats they are."""

import json
from pathlib import Path

import pytest
import webdataset
from PIL import Image

from mmbridge.data.formats import open_source
from mmbridge.data.media import open_image
from mmbridge.data.record import Record
from mmbridge.data.sample import conversation
from mmbridge.data.sources import RecordSource
from mmbridge.data.writers import write_folder, write_shards
from mmbridge.errors import DataError
from tests.data.pictures import noise, record

RECORDS = [record(index) for index in range(5)]


@pytest.mark.parametrize("write", [write_folder, lambda records, folder: write_shards(records, folder, 2)])
def test_samples_come_back_the_same(tmp_path: Path, write: object) -> None:
    assert callable(write)
    assert write(iter(RECORDS), tmp_path / "out") == 5
    before, after = RecordSource(RECORDS, "all", name="r"), open_source(tmp_path / "out")
    assert len(after) == len(before) == 20
    for ours, theirs in zip(before, after, strict=True):
        assert (theirs.id, theirs.truth) == (ours.id, ours.truth)
        assert [m.content[-1] for m in theirs.messages] == [m.content[-1] for m in ours.messages]
        assert open_image(theirs.media[0]).tobytes() == open_image(ours.media[0]).tobytes()


def test_the_folder_is_an_imagefolder(tmp_path: Path) -> None:
    write_folder(RECORDS, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text("utf-8").splitlines()]
    assert [row["file_name"] for row in rows] == [f"{index:06d}.png" for index in range(5)]
    assert rows[2]["text"] == "caption 2"
    assert rows[2]["questions"][1] == {"question": "is there a star?", "answers": ["no"], "kind": "pope"}
    assert {file.name for file in tmp_path.iterdir()} == {row["file_name"] for row in rows} | {"metadata.jsonl"}
    with Image.open(tmp_path / "000003.png") as picture:
        assert picture.tobytes() == noise(3).tobytes()


def test_webdataset_reads_the_shards(tmp_path: Path) -> None:
    write_shards(RECORDS, tmp_path, 2)
    files = sorted(str(file) for file in tmp_path.iterdir())
    assert [Path(file).name for file in files] == ["000000.tar", "000001.tar", "000002.tar"]
    theirs = list(webdataset.WebDataset(files, shardshuffle=False).decode("pil"))
    assert [sample["json"]["id"] for sample in theirs] == [record.id for record in RECORDS]
    assert theirs[4]["png"].tobytes() == noise(4).tobytes()


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_shards(RECORDS, tmp_path / name, 3)
    assert (tmp_path / "a/000001.tar").read_bytes() == (tmp_path / "b/000001.tar").read_bytes()


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a").touch()
    with pytest.raises(DataError, match="full: expected an empty folder, found files in it; name another folder"):
        write_folder(RECORDS, tmp_path / "full")
    with pytest.raises(DataError, match="a: cannot be written"):
        write_shards(RECORDS, tmp_path / "full/a")
    chat = Record("chat", messages=conversation(("user", ["hi"])))
    with pytest.raises(DataError, match="chat: expected a record with an image and columns, found a conversation"):
        write_folder([chat], tmp_path / "chat")
    assert not (tmp_path / "chat/metadata.jsonl").exists()
