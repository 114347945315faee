"""Data sets that Hugging Face's ``datasets`` itself has written."""

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from mmbridge.data.formats import open_records, open_source
from mmbridge.data.media import open_image
from mmbridge.data.pack import pack
from mmbridge.errors import DataError, MediaError
from tests.data.pictures import encoded, header_only_png, noise

datasets: Any = pytest.importorskip("datasets", reason="needs the extra hf")


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def saved(folder: Path, columns: dict[str, list[Any]], **features: Any) -> Path:
    """A data set as ``save_to_disk`` writes it; ``features`` says the type of columns that hold images."""
    inferred = datasets.Dataset.from_dict({key: column for key, column in columns.items() if key not in features})
    whole = datasets.Features({**inferred.features, **features})
    datasets.Dataset.from_dict(columns, features=whole).save_to_disk(str(folder))
    return folder


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    pictures = [encoded(noise(0)), encoded(noise(1), "JPEG"), None]
    columns: dict[str, list[Any]] = {
        "image": [picture and {"bytes": picture, "path": None} for picture in pictures],
        "text": ["zero", "one", "none"],
        "questions": [[{"question": "q?", "answers": ["a", "b"]}], [], None],
        "facts": [[["circle", "red"]], [], None],
        "id": ["a", "b", None],
    }
    return saved(tmp_path / "captions", columns, image=datasets.Image())


def test_captions_and_questions_with_the_images_own_bytes(captions: Path) -> None:
    records = open_records(captions)
    assert [tuple(held) for held in records.counts] == [(1, 1, 0, 0), (1, 0, 0, 0), (1, 0, 0, 0)]
    third, second, first = (records[index] for index in (2, 1, 0))
    assert (first.id, first.text, first.facts) == ("a", "zero", (("circle", "red"),))
    assert (first.questions[0].answers, first.questions[0].kind) == (("a", "b"), "")
    assert second.medium is not None
    assert second.medium.source == encoded(noise(1), "JPEG")
    assert second.medium.name == f"image ({captions}:1)"
    assert (third.medium, third.id) == (None, "captions:2")


@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_conversations_about_several_images(tmp_path: Path, column: str) -> None:
    messages = [
        {
            "role": "user",
            "content": [{"type": "image", "text": None}, {"type": "text", "text": "or"}, {"type": "image"}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "both"}]},
    ]
    turns = [{"from": "human", "value": "<image>or<image>"}, {"from": "gpt", "value": "both"}]
    alone = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}, messages[1]]
    talk: dict[str, list[Any]] = {
        "messages": [messages, alone],
        "conversations": [turns, [{"from": "human", "value": "hi"}, turns[1]]],
    }
    columns: dict[str, list[Any]] = {column: talk[column], "images": [[noise(1), noise(2)], []]}
    source = open_source(saved(tmp_path / "chat", columns, images=datasets.List(datasets.Image())))
    first, second = source[0], source[1]
    said = [part if isinstance(part, str) else open_image(part).tobytes() for part in first.messages[0].content]
    assert said == [noise(1).tobytes(), "or", noise(2).tobytes()]
    assert [message.content for message in second.messages] == [("hi",), ("both",)]


def test_a_selection_is_read_in_its_own_order(tmp_path: Path) -> None:
    whole = datasets.Dataset.from_dict({"text": [f"text {n}" for n in range(5)]})
    whole.select([3, 1]).save_to_disk(str(tmp_path / "few"))
    records = open_records(tmp_path / "few")
    assert [records[index].text for index in range(len(records))] == ["text 3", "text 1"]


def test_our_own_limits_open_the_images(tmp_path: Path) -> None:
    """``datasets`` would let Pillow decode whatever it can."""
    pictures = [header_only_png(50_000, 50_000), b"%!PS-Adobe-3.0 EPSF-3.0\n"]
    columns: dict[str, list[Any]] = {
        "image": [{"bytes": picture, "path": "a.png"} for picture in pictures],
        "text": ["a", "b"],
    }
    source = open_source(saved(tmp_path / "bombs", columns, image=datasets.Image()))
    with pytest.raises(MediaError, match=r"bombs:0\): expected at most 80,000,000 pixels, found 2,500,000,000"):
        open_image(source[0].media[0])
    with pytest.raises(MediaError, match=r"bombs:1\): expected an image"):
        open_image(source[1].media[0])


def test_paths_may_not_leave_the_root(tmp_path: Path) -> None:
    path = saved(tmp_path / "paths", {"image": ["a.png", "/etc/passwd"], "text": ["a", "b"]})
    (path / "a.png").write_bytes(encoded(noise(1)))
    source = open_source(path)
    assert open_image(source[0].media[0]).tobytes() == noise(1).tobytes()
    with pytest.raises(DataError, match=rf"^{path}:1: expected media inside {path}, found '/etc/passwd'"):
        source[1]


def test_what_is_wrong_is_one_line(tmp_path: Path, captions: Path) -> None:
    wrong = saved(tmp_path / "wrong", {"text": ["a", "b"], "references": [None, "x"]})
    with pytest.raises(DataError, match=r"wrong:1: references: expected a list, found 'x'$"):
        open_source(wrong)
    assert len(open_source(wrong, late=True)) == 2
    other = saved(tmp_path / "other", {"img": [noise(1)], "text": ["a"]}, img=datasets.Image())
    with pytest.raises(DataError, match="expected images in a column image or images, found img; rename the column"):
        open_source(other)
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["a"]})}).save_to_disk(str(tmp_path / "dict"))
    with pytest.raises(DataError, match=r"found train/state.json; name that folder"):
        open_source(tmp_path / "dict")
    (arrow,) = captions.glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:300])
    with pytest.raises(
        DataError, match="captions: expected a whole data set of datasets, found a fault in it"
    ) as caught:
        open_source(captions)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="expected the folder of a saved Dataset, found a file"):
        open_source(captions / "state.json", "datasets")


def test_without_the_extra_one_line_names_it(captions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"expected the package datasets, .* found none; pip install 'mmbridge\[hf\]'$"):
        open_source(captions)


def test_can_be_sent_to_workers_and_packed(captions: Path, tmp_path: Path) -> None:
    records = pickle.loads(pickle.dumps(open_records(captions)))
    assert records[1].text == "one"
    assert pack(captions, tmp_path / "out").images == 2
    packed = open_records(tmp_path / "out")
    assert [packed[index].text for index in range(3)] == ["zero", "one", "none"]
    assert packed[1].media[0].source == encoded(noise(1), "JPEG")
