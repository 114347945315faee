"""Vectors as a medium: where they may stand, and what is said of those that cannot be used."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mmbridge.data.check import check
from mmbridge.data.formats import open_records, open_source
from mmbridge.data.media import Limits
from mmbridge.data.media_paths import kind_named
from mmbridge.data.sample import Medium
from mmbridge.data.vectors import open_vectors, table_width
from mmbridge.errors import DataError, MediaError, UserError

TABLE = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "one.npy", TABLE[2])
    np.save(tmp_path / "items.npy", TABLE.astype(np.float64))
    np.save(tmp_path / "several.npy", TABLE.reshape(5, 1, 3).repeat(2, axis=1))
    save_file({"vectors": torch.from_numpy(TABLE).bfloat16()}, tmp_path / "items.safetensors")
    save_file({"B07": torch.from_numpy(TABLE[2]), "17": torch.from_numpy(TABLE[3:5])}, tmp_path / "named.safetensors")
    np.save(tmp_path / "with#2.npy", TABLE[4])
    return tmp_path


def opened(path: Path) -> np.ndarray[Any, Any]:
    return open_vectors(Medium("vector", path, path.name))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("one.npy", TABLE[2:3]),
        ("items.npy", TABLE),
        ("items.npy#2", TABLE[2:3]),
        ("several.npy#4", TABLE[[4, 4]]),
        ("named.safetensors#B07", TABLE[2:3]),
        ("named.safetensors#17", TABLE[3:5]),
        ("with#2.npy", TABLE[4:5]),
    ],
)
def test_where_vectors_stand(name: str, expected: np.ndarray[Any, Any], folder: Path) -> None:
    found = opened(folder / name)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    assert kind_named(name) == "vector"


def test_bfloat16_is_read(folder: Path) -> None:
    np.testing.assert_allclose(opened(folder / "items.safetensors#2"), TABLE[2:3], rtol=1e-2)
    np.testing.assert_allclose(opened(folder / "items.safetensors"), TABLE, rtol=1e-2)


def test_vectors_in_memory() -> None:
    assert open_vectors(Medium("vector", TABLE[0].astype(np.float16))).shape == (1, 3)
    np.testing.assert_array_equal(open_vectors(Medium("vector", TABLE)), TABLE)


def test_widths_of_tables(folder: Path) -> None:
    for name in ("items.npy", "items.safetensors", "named.safetensors", "several.npy"):
        assert table_width(folder / name) == 3
    save_file({"a": torch.zeros(2), "b": torch.zeros(3)}, folder / "mixed.safetensors")
    with pytest.raises(UserError, match="expected vectors of one width, found 2, 3"):
        table_width(folder / "mixed.safetensors")
    (folder / "broken.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(UserError, match="expected a table of vectors, found another file"):
        table_width(folder / "broken.safetensors")


def wrong(write: Callable[[Path], object], name: str, folder: Path) -> str:
    write(folder)
    with pytest.raises(MediaError) as caught:
        opened(folder / name)
    line = str(caught.value)
    assert "\n" not in line
    return line


class Pickled:
    """What would say so, were it unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("unpickled"),)


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "items.npy#5": (lambda _: None, "expected a row from 0 to 4, found '5'"),
    "items.npy#-1": (lambda _: None, "expected a row from 0 to 4, found '-1'"),
    "items.npy#²": (lambda _: None, "expected a row from 0 to 4, found '²'"),
    "one.npy#0": (lambda _: None, "expected a table, (rows, D) or (rows, K, D), found shape (3,)"),
    "several.npy": (lambda _: None, "expected one vector or a few, (D,) or (K, D), found shape (5, 2, 3); name a row"),
    "named.safetensors": (lambda _: None, "expected a name; name one: named.safetensors#17"),
    "named.safetensors#B08": (lambda _: None, "expected one of 2 tensors by name, found 'B08'; name one"),
    "items.safetensors#B07": (lambda _: None, "expected a row from 0 to 4, found 'B07'"),
    "none.npy": (lambda _: None, "expected vectors, found no such file"),
    "none.safetensors#1": (lambda _: None, "expected vectors, found no such file"),
    "one.png": (lambda _: None, "expected vectors in .npy or .safetensors, found another kind of file"),
    "empty.npy": (lambda f: (f / "empty.npy").touch(), "found a damaged file or another kind"),
    "void.npy": (lambda f: np.save(f / "void.npy", np.zeros((0, 3))), "(D,) or (K, D), found shape (0, 3)"),
    "whole.npy": (lambda f: np.save(f / "whole.npy", np.arange(3)), "expected floating-point numbers, found int64"),
    "nan.npy": (lambda f: np.save(f / "nan.npy", np.array([1, np.nan])), "expected finite numbers, found nan"),
    "far.npy": (lambda f: np.save(f / "far.npy", np.array([1e300])), "expected finite numbers, found inf"),
    "text.npy": (lambda f: (f / "text.npy").write_text("no array"), "found a damaged file or another kind"),
    "pickle.npy": (
        lambda f: np.save(f / "pickle.npy", np.array([Pickled()]), allow_pickle=True),
        "found a damaged file or another kind",
    ),
    "zip.npy": (lambda f: np.savez((f / "zip.npy").open("wb"), a=TABLE), "found an archive of several"),
    "cut.npy": (lambda f: (f / "cut.npy").write_bytes((f / "items.npy").read_bytes()[:-9]), "damaged file"),
    "cut.safetensors": (
        lambda f: (f / "cut.safetensors").write_bytes((f / "items.safetensors").read_bytes()[:-9]),
        "damaged file",
    ),
    "folder.npy": (lambda f: (f / "folder.npy").mkdir(), "damaged file or another kind"),
}


@pytest.mark.parametrize("name", WRONG)
def test_vectors_that_cannot_be_used(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    write, expected = WRONG[name]
    assert expected in wrong(write, name, folder)
    assert not (folder / "unpickled").exists()


def test_a_header_that_promises_much_is_not_believed(folder: Path) -> None:
    """A file of a few bytes that says it holds a terabyte; and a real one above the limit, of which a row is not."""
    header = np.lib.format.header_data_from_array_1_0(TABLE) | {"shape": (2**38, 2**30)}
    with (folder / "bomb.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(MediaError, match="damaged file or another kind"):
        opened(folder / "bomb.npy")
    little = Limits(bytes=12)
    for name in ("items.npy", "items.safetensors"):
        medium = Medium("vector", folder / name, name)
        with pytest.raises(MediaError, match=r"at most 12 bytes, found \d+; name a row of a table"):
            open_vectors(medium, little)
    row = Medium("vector", folder / "items.safetensors#1", "row")
    assert open_vectors(row, little).shape == (1, 3)
    with pytest.raises(MediaError, match="expected an array or a path, found bytes"):
        open_vectors(replace(row, source=b"\x93NUMPY"))


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_folder_names_rows_of_a_table(folder: Path) -> None:
    lines(folder / "metadata.jsonl", *({"file_name": f"items.npy#{n}", "text": f"item {n}"} for n in (3, 1)))
    source = open_source(folder, task="caption", prompts=("Describe it.",))
    for sample, row in zip(source, (3, 1), strict=True):
        (medium,) = sample.media
        assert medium.kind == "vector"
        np.testing.assert_array_equal(open_vectors(medium), TABLE[row : row + 1])
    findings = check(open_records(folder, late=True))
    assert (findings.bad, findings.sizes, findings.records) == (0, [], 2)
    lines(folder / "metadata.jsonl", {"file_name": "items.npy#9", "text": "none"})
    (problem,) = check(open_records(folder, late=True)).problems
    assert "metadata.jsonl:1): expected a row from 0 to 4, found '9'" in problem.line


def test_two_items_of_a_conversation(folder: Path) -> None:
    """Parts that name their rows, parts that take the next of the row's, and marks in a text."""
    said = {"role": "assistant", "content": "a circle"}
    named = [{"type": "vector", "path": "items.npy#3"}, {"type": "vector", "path": "items.safetensors#1"}]
    taken = [{"type": "vector"}, {"type": "vector"}]
    words = {"type": "text", "text": "Describe the first."}
    both = ["items.npy#3", "items.safetensors#1"]
    file = lines(
        folder / "pairs.jsonl",
        {"messages": [{"role": "user", "content": [*named, words]}, said]},
        {"vectors": both, "messages": [{"role": "user", "content": [*taken, words]}, said]},
        {"vectors": both, "messages": [{"role": "user", "content": "<vector><vector>Describe the first."}, said]},
    )
    first, *others = [sample.messages for sample in open_source(file, task="messages")]
    for messages in others:
        assert [getattr(part, "source", part) for part in messages[0].content] == [
            getattr(part, "source", part) for part in first[0].content
        ]
    assert [medium.kind for medium in first[0].media] == ["vector", "vector"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"vectors": ["items.npy#1"], "messages": "<vector><vector>?"}, "found 2 <vector> and 1 vector"),
        ({"vector": 3, "messages": "?"}, "vector: expected a path or a list of paths, found 3"),
        ({"vector": "../items.npy#1", "messages": "<vector>?"}, "expected media inside"),
        ({"vector": "/etc/items.npy", "messages": "<vector>?"}, "expected media inside"),
        ({"image": "a.png", "messages": "<vector>?"}, "found 0 <image> and 1 image"),
        ({"messages": [{"type": "vector", "url": "http://a/b.npy"}]}, "found 1 <vector> and 0 vectors"),
        ({"messages": [{"type": "vector", "path": "http://a/b.npy"}]}, "expected a local file, found the URL"),
        ({"messages": [{"type": "vector", "path": [1.0]}]}, "path: expected a path or an array, found [1.0]"),
    ],
)
def test_rows_that_are_wrong(row: dict[str, Any], expected: str, folder: Path) -> None:
    asked = {"role": "user", "content": row.pop("messages")}
    file = lines(folder / "pairs.jsonl", row | {"messages": [asked, {"role": "assistant", "content": "yes"}]})
    with pytest.raises(DataError) as caught:
        open_source(file)
    assert expected in str(caught.value)
    assert "pairs.jsonl:1" in str(caught.value)
