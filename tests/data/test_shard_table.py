"""The table of shards: kept, read again while nothing has changed, and made anew when anything has."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mmbridge.data import shard_table, shards
from mmbridge.data.shards import ShardRecords
from mmbridge.errors import DataError
from tests.data.test_shards import column, shard


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where tables are kept, however small they are."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(shard_table, "KEPT_FROM", 1)
    return tmp_path / "cache" / "mmbridge" / "shard_tables"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two shards: a caption, a sample too large and a name that is not UTF-8; a caption and JSON that is none."""
    first = [("0.txt", b"a"), ("1.txt", b"x" * 2000), ("2\udcff.json", column(text="c")), ("2\udcff.png", b"x")]
    return [
        shard(tmp_path / "0.tar", *first),
        shard(tmp_path / "1.tar", ("0.txt", "été".encode()), ("1.json", b"{")),
    ]


def told(records: ShardRecords) -> list[str]:
    """All there is to say of each record."""
    return [f"{records.where(index)} {records.counts[index]} {said(records, index)}" for index in range(len(records))]


def said(records: ShardRecords, index: int) -> str:
    try:
        return f"{records[index]}"
    except DataError as error:
        return str(error)


def opened(files: list[Path]) -> ShardRecords:
    return ShardRecords(files, late=True, largest=1000)


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch, kept: Path, files: list[Path]) -> list[str]:
    """What the shards say, opened once; opened again, their headers may not be read."""
    found = told(opened(files))
    monkeypatch.setattr(shards, "entries", lambda *_: pytest.fail("read the headers again"))
    return found


def test_a_table_that_was_kept_says_the_same(unread: list[str], files: list[Path], kept: Path) -> None:
    assert told(opened(files)) == unread
    assert len(unread) == 5
    assert sum(": expected" in line for line in unread) == 2
    assert [path.suffix for path in kept.iterdir()] == [".safetensors"]


def test_a_changed_shard_is_read_again(kept: Path, files: list[Path]) -> None:
    before = told(opened(files))
    facts = files[1].stat()
    shard(files[1], ("0.txt", b"other"), ("1.txt", b"b"))
    os.utime(files[1], ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    after = told(opened(files))
    assert after[:3] == before[:3]
    assert after[3:] != before[3:]
    assert len(list(kept.iterdir())) == 1, "a table takes the place of the one before"


def test_what_a_table_depends_on_makes_another(unread: list[str], files: list[Path], tmp_path: Path) -> None:
    os.utime(files[0])
    other: list[Callable[[], ShardRecords]] = [
        lambda: opened(files[:1]),
        lambda: ShardRecords(files, late=True, largest=1001),
        lambda: ShardRecords(files, late=False, largest=1000),
        lambda: ShardRecords(files, tmp_path, late=True, largest=1000),
        lambda: opened(files),
    ]
    for each in other:
        with pytest.raises(pytest.fail.Exception, match="read the headers again"):
            each()


@pytest.mark.parametrize("contents", [b"", b"no table", b"\x02\0\0\0\0\0\0\0{}"])
def test_a_damaged_table_is_made_again(kept: Path, files: list[Path], contents: bytes) -> None:
    before = told(opened(files))
    (table,) = kept.iterdir()
    table.write_bytes(contents)
    assert told(opened(files)) == before
    assert table.stat().st_size > 100


def test_few_samples_are_not_kept(kept: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_table, "KEPT_FROM", 6)
    opened(files)
    assert not kept.exists()


def test_a_table_that_cannot_be_kept_does_no_harm(files: list[Path], kept: Path) -> None:
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert len(opened(files)) == 5


def test_an_error_keeps_nothing(files: list[Path], kept: Path) -> None:
    with pytest.raises(DataError, match=r"1.tar:1: .json: expected JSON"):
        ShardRecords(files)
    assert not kept.exists()
