"""Rows of JSON files by random access, and where a file that is none is wrong."""

import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from mmbridge.data import json_rows
from mmbridge.data.json_rows import JsonRows
from mmbridge.errors import DataError

ROWS = [{"n": 0, "text": "schön ✓"}, {"n": 1, "text": 'a "]" and a ,\n\\'}, {"n": 2, "inner": [{"a": [1, {}]}]}]


def opened(path: Path, text: str | bytes) -> JsonRows:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return JsonRows(path, lambda parse, where: parse())


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize(
    ("indent", "prefix"), [(None, ""), (2, ""), (None, "\ufeff"), (None, "\n \n")], ids=["flat", "tall", "bom", "space"]
)
def test_an_array_by_random_access(tmp_path: Path, indent: int | None, prefix: str, ascii_only: bool) -> None:
    rows = opened(tmp_path / "a.json", prefix + json.dumps(ROWS, indent=indent, ensure_ascii=ascii_only))
    assert [rows[index][0] for index in (2, 0, 1)] == [ROWS[2], ROWS[0], ROWS[1]]
    assert len(rows) == 3
    assert len(pickle.loads(pickle.dumps(rows))) == 3


def test_lines_by_random_access(tmp_path: Path) -> None:
    text = "\ufeff" + "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
    rows = opened(tmp_path / "a.jsonl", text)
    assert [rows[index] for index in (2, 0)] == [(ROWS[2], f"{rows.path}:5"), (ROWS[0], f"{rows.path}:1")]
    windows = opened(tmp_path / "b.jsonl", '{"n": 0}\r\n{"n": 1}\r\n')
    assert [windows[index][0]["n"] for index in range(2)] == [0, 1]


def test_lines_of_an_array_are_counted(tmp_path: Path) -> None:
    rows = opened(tmp_path / "a.json", '[\n{"n": 0},\n\n{"n": 1}]')
    assert [rows[index][1].rpartition(":")[2] for index in range(2)] == ["2", "4"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"n": 0}\n{"n": \n', ":2: expected JSON, found an error in it (Expecting value)"),
        ('{"n": 0}\n\n[3]\n', ":3: expected an object, found list"),
        ('[{"n": 0},\n {"n" 1}]', ":2: expected JSON, found an error in it (Expecting ':' delimiter)"),
        ('[{"n": 0},\n]', ":2: expected JSON, found an error in it (Expecting value)"),
        ('[{"n": 0}\n', ":2: expected the array to end, found the end of the file"),
        ('[{"n": 0}] []', ":1: expected the array to end, found '] []'"),
        ('[\n{"n": 0},\n7]', ":3: expected an object, found int"),
        ("[" * 100_000, ":1: expected JSON, found an error in it (RecursionError)"),
        ("[]", ": expected rows, found none"),
        ("\n \n", ": expected rows, found none"),
        (b'{"n": 0}\n{"n": "\xff"}', ":2: expected UTF-8 text, found other bytes"),
    ],
)
def test_what_is_wrong_names_file_and_line(tmp_path: Path, text: str | bytes, line: str) -> None:
    with pytest.raises(DataError) as caught:
        opened(tmp_path / "a.json", text)
    assert str(caught.value).startswith(f"{tmp_path / 'a.json'}{line}")


def test_a_broken_line_can_be_passed_over_until_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"n": 0}\n{"n": \n[3]\n{"n": 3}\n')
    rows = JsonRows(tmp_path / "a.jsonl", lambda parse, where: None)
    assert [rows[index][0]["n"] for index in (0, 3)] == [0, 3]
    for index, line in ((1, ":2: expected JSON, found an error in it"), (2, ":3: expected an object, found list")):
        with pytest.raises(DataError, match=line):
            rows[index]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a data file, found no such file"):
        JsonRows(tmp_path / "a.json", lambda parse, where: None)


def test_every_row_is_checked_once_with_its_line(tmp_path: Path) -> None:
    seen: list[tuple[Any, str]] = []
    (tmp_path / "a.jsonl").write_text('{"n": 0}\n\n{"n": 1}\n')
    JsonRows(tmp_path / "a.jsonl", lambda parse, where: seen.append((parse()["n"], where.rpartition(":")[2])))
    assert seen == [(0, "1"), (1, "3")]


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("window", [1, 2, 7, 40])
def test_rows_that_lie_across_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int, ascii_only: bool
) -> None:
    monkeypatch.setattr(json_rows, "_WINDOW", window)
    text = json.dumps([*ROWS, *ROWS], indent=1, ensure_ascii=ascii_only)
    rows = opened(tmp_path / "a.json", "\ufeff" + text + "\n" * 50)
    assert [rows[index][0] for index in range(6)] == [*ROWS, *ROWS]
    lines = [number for number, line in enumerate(text.split("\n"), start=1) if line.startswith(" {")]
    assert [int(rows.where(index).rpartition(":")[2]) for index in range(6)] == lines
    test_what_is_wrong_names_file_and_line(tmp_path, '[{"n": 0},\n {"n" 1}]', ":2: expected JSON, found an error in it")
    test_what_is_wrong_names_file_and_line(tmp_path, '[{"n": 0},\n\n12', ":3: expected an object, found int")
    test_what_is_wrong_names_file_and_line(tmp_path, b'[{"n": 0},\n{"n": "\xc3"}]', ":2: expected UTF-8 text")
    test_what_is_wrong_names_file_and_line(tmp_path, b'[{"n": 0},\n{"n": 1}]\n\n\xc3', ":4: expected UTF-8 text")


@pytest.mark.parametrize(
    "text", [(b"[" + b'{"n": "%s"},\n' % (b"x" * 80) * 40_000)[:-2] + b"]", b'{"n": 0}\n' * 99_999]
)
def test_a_file_is_never_in_memory_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(json_rows, "_WINDOW", 2**14)
    (tmp_path / "a.json").write_bytes(text)
    tracemalloc.start()
    rows = JsonRows(tmp_path / "a.json", lambda parse, where: None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30 * len(rows) + 200_000
