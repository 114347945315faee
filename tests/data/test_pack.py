"""Any data set becomes shards that are read back the same, by us and by webdataset, with the images' own bytes."""

import json
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import webdataset
from PIL import Image

from mmbridge.data.formats import open_records
from mmbridge.data.media import image_file
from mmbridge.data.pack import pack
from mmbridge.data.record import Record
from mmbridge.data.sample import Medium
from mmbridge.errors import DataError, MediaError
from tests.data.pictures import encoded, noise, write_lines

FILES = {
    "a.png": encoded(noise(1), "JPEG"),  # called what it is not
    "b.jpg": encoded(noise(2), "PNG"),
    "c.webp": encoded(noise(3), "WEBP"),
    "d.gif": encoded(noise(4).convert("P"), "GIF"),
    "e.bmp": encoded(noise(5), "BMP"),
    "f.tiff": encoded(noise(6), "TIFF"),
    "g": encoded(noise(7), "PPM"),
    "h.jpeg": encoded(noise(8), "MPO", save_all=True, append_images=[noise(9)]),
}
TRUE_EXTENSIONS = ["jpg", "png", "webp", "gif", "bmp", "tif", "ppm", "jpg"]


def image(name: str) -> dict[str, str]:
    return {"type": "image", "path": name}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


CHATS: list[dict[str, Any]] = [
    {
        "id": "three",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [text("first"), image("a.png"), text("then"), image("b.jpg"), text("?")]},
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": [image("a.png"), text("and <image> again?")]},
            {"role": "assistant", "content": [text("so"), text(" it is")]},
        ],
    },
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello\ud83d"}]},
    {
        "images": ["c.webp", "d.gif"],
        "messages": [{"role": "user", "content": "<image>\nor <image>?"}, {"role": "assistant", "content": "été"}],
        "split": "train",
        "facts": [["circle", "red"]],
    },
    {
        "messages": [
            {"role": "user", "content": [{"type": "image", "base64": b64encode(FILES["e.bmp"]).decode()}]},
            {"role": "assistant", "content": "one"},
        ]
    },
]
LLAVA: list[dict[str, Any]] = [
    {
        "id": f"l{number}",
        "image": names,
        "conversations": [
            {"from": "human", "value": "<image>\n" * (len(names) if isinstance(names, list) else 1) + "what?"},
            {"from": "gpt", "value": "noise"},
        ],
    }
    for number, names in enumerate(("a.png", ["g", "h.jpeg"]))
] + [{"id": "text", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]}]
ROWS: list[dict[str, Any]] = [
    {
        "file_name": name,
        "text": f"caption of {name}",
        "references": ["another"],
        "facts": [["circle", "red"]],
        "objects": [{"name": "circle"}],
        "questions": [{"question": "q?", "answers": ["a", "an a"], "kind": "pope"}, {"question": "", "answers": [""]}],
        "split": "test",
    }
    for name in FILES
] + [{"file_name": "a.png", "text": ""}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    return tmp_path / "in"


def plain(record: Record) -> Any:
    """A record, its media as the bytes of their files."""

    def shown(medium: Medium) -> bytes:
        return image_file(medium)[0]

    messages = record.messages and [
        (message.role, [part if isinstance(part, str) else shown(part) for part in message.content])
        for message in record.messages
    ]
    rest = (record.id, record.text, record.references, record.facts, record.objects, record.questions, record.split)
    return rest, record.medium and shown(record.medium), messages


def read(path: Path) -> list[Any]:
    records = open_records(path)
    return [plain(records[index]) for index in range(len(records))]


@pytest.mark.parametrize(
    ("name", "rows", "images"),
    [("chat.jsonl", CHATS, 6), ("llava.jsonl", LLAVA, 3), ("metadata.jsonl", ROWS, 9)],
    ids=["chat", "llava", "folder"],
)
def test_records_come_back_equal(
    folder: Path, tmp_path: Path, name: str, rows: Sequence[dict[str, Any]], images: int
) -> None:
    path = write_lines(folder / name, rows)
    packed = pack(path, tmp_path / "out", per_shard=2)
    assert (packed.records, packed.shards, packed.images, packed.skipped) == (len(rows), -(-len(rows) // 2), images, ())
    assert read(tmp_path / "out") == read(path)
    again = pack(tmp_path / "out", tmp_path / "again", per_shard=2)
    assert again == packed
    for shard in sorted((tmp_path / "out").iterdir()):
        assert shard.read_bytes() == (tmp_path / "again" / shard.name).read_bytes()


def test_images_keep_their_bytes_and_get_the_extension_these_ask_for(folder: Path, tmp_path: Path) -> None:
    write_lines(folder / "metadata.jsonl", ROWS[: len(FILES)])
    pack(folder, tmp_path / "out")
    theirs = list(webdataset.WebDataset(str(tmp_path / "out/000000.tar"), shardshuffle=False))
    assert [json.loads(sample["json"])["text"] for sample in theirs] == [row["text"] for row in ROWS[: len(FILES)]]
    for sample, extension, data in zip(theirs, TRUE_EXTENSIONS, FILES.values(), strict=True):
        assert {key for key in sample if not key.startswith("__")} == {extension, "json"}
        assert sample[extension] == data


def test_webdataset_reads_conversations_of_several_images(folder: Path, tmp_path: Path) -> None:
    pack(write_lines(folder / "chat.jsonl", CHATS), tmp_path / "out")
    theirs = list(webdataset.WebDataset(str(tmp_path / "out/000000.tar"), shardshuffle=False))
    three, alone, two, one = theirs
    assert [three["0.jpg"], three["1.png"], three["2.jpg"]] == [FILES["a.png"], FILES["b.jpg"], FILES["a.png"]]
    parts = json.loads(three["json"])["messages"][1]["content"]
    assert parts == [text("first"), {"type": "image"}, text("then"), {"type": "image"}, text("?")]
    assert {key for key in alone if not key.startswith("__")} == {"json"}
    assert (two["0.webp"], two["1.gif"], one["bmp"]) == (FILES["c.webp"], FILES["d.gif"], FILES["e.bmp"])


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("gone.png", None, "expected an image, found no such file"),
        ("cut.jpg", FILES["a.png"][:200], "expected a whole image, found a damaged one"),
        ("words.png", b"words", "expected an image"),
    ],
)
def test_a_bad_record_is_an_error_that_names_it_or_left_out(
    folder: Path, tmp_path: Path, name: str, data: bytes | None, problem: str
) -> None:
    if data is not None:
        (folder / name).write_bytes(data)
    bad = {"file_name": name, "text": "bad"}
    path = write_lines(folder / "metadata.jsonl", [ROWS[0], bad, ROWS[1]])
    with pytest.raises(MediaError, match=rf"^{name} \({path}:2\): {problem}"):
        pack(path, tmp_path / "out", per_shard=1)
    assert list((tmp_path / "out").iterdir()) == []
    write_lines(path, [ROWS[0], bad, "{", ROWS[1]])
    packed = pack(path, tmp_path / "out", per_shard=1, skip=True)
    assert packed.records == packed.shards == 2
    assert packed.skipped[0].line.startswith(f"{name} ({path}:2): {problem}")
    assert packed.skipped[1].line.startswith(f"{path}:3: expected JSON")
    assert [record[0][1] for record in read(tmp_path / "out")] == ["caption of a.png", "caption of b.jpg"]


def test_what_cannot_be_packed(folder: Path, tmp_path: Path) -> None:
    path = write_lines(folder / "metadata.jsonl", [{"file_name": "gone.png", "text": "x"}])
    with pytest.raises(DataError, match=r"expected records to pack, found 1 that cannot be read: gone.png"):
        pack(path, tmp_path / "none", skip=True)
    with pytest.raises(DataError, match="expected an empty folder, found files in it"):
        pack(write_lines(folder / "metadata.jsonl", ROWS), folder)


def test_pictures_in_memory_become_png(tmp_path: Path) -> None:
    data, extension = image_file(Medium("image", noise(1)))
    assert extension == "png"
    (tmp_path / "a").write_bytes(data)
    with Image.open(tmp_path / "a") as picture:
        assert picture.tobytes() == noise(1).tobytes()
