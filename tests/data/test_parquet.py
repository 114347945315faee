"""Parquet files on disk, held against ``datasets``' own streaming of them."""

import pickle
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mmbridge.data import kept_arrays, parquet, parquet_file, parquet_schema, parquet_table
from mmbridge.data.formats import open_records, open_source
from mmbridge.data.media import open_image
from mmbridge.data.mixture import Mixture
from mmbridge.data.pack import pack
from mmbridge.data.parquet import ParquetRecords
from mmbridge.data.record import Record
from mmbridge.data.rows import named_media, read_record
from mmbridge.data.sources import DataSet
from mmbridge.errors import DataError, MediaError
from tests.data.parquets import captions, written
from tests.data.pictures import encoded, header_only_png, noise

datasets: Any = pytest.importorskip("datasets", reason="needs the extra hf")
pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mmbridge" / "parquet_tables"


def streamed(files: list[Path], root: Path, **images: Any) -> list[Record]:
    """The records of the rows that ``datasets`` streams, in its order."""
    rows = datasets.load_dataset("parquet", data_files=[str(file) for file in files], split="train", streaming=True)
    for name, feature in images.items():
        rows = rows.cast_column(name, feature)
    places = [(file, place) for file in files for place in range(pq.read_metadata(file).num_rows)]
    made = []
    for row, (file, place) in zip(rows, places, strict=True):
        where = f"{file}:{place}"
        made.append(read_record(row, f"{file.name}:{place}", named_media(row, root, where), root, where))
    return made


def everything(records: DataSet) -> list[Record]:
    return [records[index] for index in range(len(records))]


def test_captions_are_what_datasets_streams(tmp_path: Path) -> None:
    files = [captions(tmp_path / "a.parquet", range(30)), captions(tmp_path / "b.parquet", range(30, 41), rows=5)]
    expected = streamed(files, tmp_path, image=datasets.Image(decode=False))
    records = open_records(tmp_path)
    assert isinstance(records, ParquetRecords)
    assert everything(records) == expected
    assert [tuple(held) for held in records.counts] == [record.counts() for record in expected]
    assert records.blocks.sizes.tolist() == [8, 8, 8, 6, 5, 5, 1]
    assert records.where(31) == f"{files[1]}:1"
    pixels = [open_image(record.medium).tobytes() for record in expected if record.medium is not None]
    assert pixels == [noise(n, 64).tobytes() for n in range(41) if n % 7 != 6]
    for index in (-1, 41):
        with pytest.raises(IndexError):
            records[index]


@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_conversations_are_what_datasets_streams(tmp_path: Path, column: str) -> None:
    said: Any = {
        "messages": [
            {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "or"}] * 2},
            {"role": "assistant", "content": [{"type": "text", "text": "both"}]},
        ],
        "conversations": [{"from": "human", "value": "<image>or<image>"}, {"from": "gpt", "value": "both"}],
    }[column]
    alone: Any = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}, said[1]],
        "conversations": [{"from": "human", "value": "hi"}, said[1]],
    }[column]
    columns: dict[str, list[Any]] = {
        column: [said, alone, said, alone],
        "images": [[noise(1), noise(2)], [], [noise(3), noise(4)], None],
    }
    file = written(tmp_path / "x.parquet", columns, 2, images=datasets.List(datasets.Image()))
    records = open_records(file)
    assert everything(records) == streamed([file], tmp_path, images=datasets.List(datasets.Image(decode=False)))
    assert records.counts.tolist() == [[1, 1, 0, 1]] * 4
    assert open_image(records[2].media[1]).tobytes() == noise(4).tobytes()


def test_nothing_is_read_of_columns_that_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    columns_of = parquet_schema.columns_of

    def noted(metadata: Any, where: str) -> Any:
        columns = columns_of(metadata, where)
        asked.append([*columns.drawn, *columns.counted])
        return columns

    monkeypatch.setattr(parquet_file, "columns_of", noted)
    open_records(captions(tmp_path / "x.parquet", range(9)))
    (names,) = asked
    assert Counter(names) == {"image": 1, "image.path": 1, "text": 2, "questions": 2, "id": 2}


def test_names_of_files(tmp_path: Path) -> None:
    for number in range(3):
        captions(tmp_path / f"in/train-{number:05d}-of-00003.parquet", range(number * 10, number * 10 + 10))
    ids = [f"r{n}" for n in range(30)]
    for name in ("in", "in/train-{00000..00002}-of-00003.parquet", "in/*.parquet", "i*/train-*.parquet"):
        assert [record.id for record in everything(open_records(f"{tmp_path}/{name}"))] == ids, name
    (tmp_path / "in/x").write_bytes((tmp_path / "in/train-00001-of-00003.parquet").read_bytes())
    assert len(open_records(tmp_path / "in/x", "parquet")) == 10
    captions(tmp_path / "in/test-00000-of-00001.parquet", range(3))
    line = f"in: expected the files of one split, found test, train; name one, such as {tmp_path}/in/test-*.parquet"
    with pytest.raises(DataError, match=line.replace("*", r"\*")):
        open_records(tmp_path / "in")
    for path, line in (
        (tmp_path, "expected metadata.jsonl, state.json, .tar or .parquet files, found in/test-00000-of-00001.parquet"),
        (tmp_path / "gone.parquet", "gone.parquet: cannot be read: found no such file"),
        (tmp_path / "gone-*.parquet", "expected .parquet files, found none"),
        ("s3://bucket/x.parquet", "expected a path, http, https or hf://datasets/, found s3"),
        (tmp_path / "{0..x}.parquet", "brace pattern|no such file"),
    ):
        with pytest.raises(DataError, match=line) as caught:
            open_records(path)
        assert "\n" not in str(caught.value)


def read_groups(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Grows with each row group that is read with its images."""
    read: list[tuple[str, int]] = []
    group = parquet_file.ParquetFile.group

    def noted(self: parquet_file.ParquetFile, number: int, rows: int) -> Any:
        read.append((self.where(0), number))
        return group(self, number, rows)

    monkeypatch.setattr(parquet_file.ParquetFile, "group", noted)
    return read


@pytest.mark.parametrize("options", [{}, {"task": "vqa"}, {"limit": 45, "task": "all"}, {"task": "all", "together": 2}])
def test_an_epoch_reads_each_row_group_once(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the draws are that a row makes; a shuffle of everything reads one for nearly every draw."""
    captions(tmp_path / "a.parquet", range(40), rows=4)
    captions(tmp_path / "b.parquet", range(40, 60), rows=5)
    monkeypatch.setattr(parquet, "MOST", 2)
    source = open_source(tmp_path, **{"task": "caption", **options})
    assert source.blocks is not None
    assert source.blocks.sizes.sum() == len(source)
    mixture = Mixture([source], [1.0], 5)
    read = read_groups(monkeypatch)
    for epoch in range(2):
        read.clear()
        drawn = [mixture.locate(epoch * len(mixture) + place)[1] for place in range(len(mixture))]
        for index in drawn:
            source[index]
        assert sorted(drawn) == list(range(len(source)))
        assert set(Counter(read).values()) == {1}
        assert epoch or len(read) == len(source.blocks.sizes)  # then some are there from the epoch before
    assert drawn != sorted(drawn)


def test_as_many_row_groups_are_kept_as_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = captions(tmp_path / "x.parquet", range(40), rows=4)
    largest = int(ParquetRecords(str(file))._table.sizes.max())
    assert largest > 4 * 64 * 64 * 3
    for held, window in ((largest * 5 + 1, 5), (1, parquet.FEWEST), (largest * 1000, parquet.MOST)):
        monkeypatch.setattr(parquet, "HELD", held)
        assert ParquetRecords(str(file)).blocks.window == window


def test_sent_to_another_process_it_takes_no_row_group_along(tmp_path: Path) -> None:
    records = ParquetRecords(str(captions(tmp_path / "x.parquet", range(100))))
    for index in range(0, 100, 8):
        records[index]
    sent = pickle.dumps(records)
    assert len(sent) < 20_000 < 64 * 64 * 3 * 100
    assert pickle.loads(sent)[11] == records[11]


def damaged(file: Path, group: int, column: int) -> Path:
    """A file, one column of one row group of which is not what was compressed."""
    chunk = pq.read_metadata(file).row_group(group).column(column)
    begin = chunk.dictionary_page_offset or chunk.data_page_offset
    data = bytearray(file.read_bytes())
    data[begin : begin + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    file.write_bytes(data)
    return file


def column(file: Path, path: str) -> int:
    schema = pq.read_metadata(file).schema
    return next(number for number in range(len(schema)) if schema.column(number).path == path)


def test_a_damaged_row_group_is_a_fault_of_its_rows(tmp_path: Path) -> None:
    file = captions(tmp_path / "x.parquet", range(24))
    words, pictures = (column(file, path) for path in ("text", "image.bytes"))
    damaged(damaged(file, 1, words), 2, pictures)
    with pytest.raises(DataError, match=r"x.parquet: expected a whole Parquet file, found a fault in row group 1 \("):
        open_records(file)
    records = open_records(file, late=True)
    assert records.counts[8:16].tolist() == [[1] * 4] * 8
    good = [index for index in range(24) if not isinstance(of(records, index), DataError)]
    assert good == list(range(8))
    for index in (8, 9, 20):
        assert f"found a fault in row group {index // 8} (" in str(of(records, index))


def of(records: DataSet, index: int) -> Record | DataError:
    try:
        return records[index]
    except DataError as error:
        return error


def table(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


IMAGE = [{"bytes": b"x", "path": "a"}]


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        ({"label": [1]}, "expected one of the columns text, caption, .* found label"),
        ({"text": [3]}, "x.parquet:0: text: expected text, found 3"),
        ({"text": [None]}, "x.parquet:0: expected one of the columns"),
        ({"text": ["a"], "references": ["b"]}, "x.parquet:0: references: expected a list, found 'b'"),
        ({"text": ["a"], "img": IMAGE}, "expected images in a column image or images, found img; rename the column"),
        ({"text": ["a"], "image": [b"x"]}, "image: expected images as bytes and path, or as paths, found binary; "),
        ({"text": ["a"], "images": [[1]]}, "images: expected images as bytes and path, .*found list<"),
        ({"text": pa.array([], pa.string())}, "x.parquet: expected rows, found none"),
        ({"messages": ["hi"]}, "x.parquet:0: expected a list of messages, found 'hi'"),
        ({"text": pa.array([b"\xff\xfe"]).cast(pa.string(), safe=False)}, "found a fault in row group 0 \\('utf-8'"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, columns: dict[str, Any], line: str) -> None:
    with pytest.raises(DataError, match=line) as caught:
        open_records(table(tmp_path / "x.parquet", **columns))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [0, 3, 8, 500, -1, -9])
def test_files_that_are_none(tmp_path: Path, cut: int) -> None:
    """Cut off anywhere there is no footer; late or not, no row is known."""
    file = captions(tmp_path / "x.parquet", range(20))
    file.write_bytes(file.read_bytes()[:cut])
    for late in (False, True):
        line = r"x.parquet: expected a whole Parquet file, found a fault"
        with pytest.raises(DataError, match=line) as caught:
            open_records(file, late=late)
        assert "\n" not in str(caught.value)
    file.write_bytes(b"PAR1" + bytes(range(256)) * 20 + b"\xf0\x10\0\0PAR1")
    with pytest.raises(DataError, match=line):
        open_records(file)


def test_columns_that_cannot_be_told_apart(tmp_path: Path) -> None:
    pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="expected each column once, found text twice"):
        open_records(tmp_path / "x.parquet")


def test_sounds_stored_as_images_are_no_images(tmp_path: Path) -> None:
    """The feature ``Audio`` is stored as ``Image`` is; what ``datasets`` has noted tells which it is."""
    features = datasets.Features({"text": datasets.Value("string"), "audio": datasets.Audio()})
    schema = features.arrow_schema
    pq.write_table(pa.table({"text": ["a"], "audio": [{"bytes": b"x", "path": "a"}]}, schema), tmp_path / "x.parquet")
    assert open_records(tmp_path / "x.parquet")[0].media == ()


def test_row_groups_too_large_to_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = captions(tmp_path / "x.parquet", range(20))
    for name in ("LARGEST", "MOST"):
        with monkeypatch.context() as patch:
            patch.setattr(parquet_file, name, 7)
            with pytest.raises(
                DataError, match=r"expected row groups of at most .* 8 rows; write it anew with smaller"
            ):
                open_records(file)


def test_our_own_limits_open_the_images(tmp_path: Path) -> None:
    pictures = [header_only_png(50_000, 50_000), b"%!PS-Adobe-3.0 EPSF-3.0\n"]
    columns: dict[str, list[Any]] = {"image": [{"bytes": each, "path": None} for each in pictures], "text": ["a", "b"]}
    records = open_records(written(tmp_path / "x.parquet", columns, image=datasets.Image()))
    for index, line in ((0, "expected at most 80,000,000 pixels, found 2,500,000,000"), (1, "expected an image")):
        with pytest.raises(MediaError, match=rf"x.parquet:{index}\): {line}"):
            open_image(records[index].media[0])


def test_paths_start_from_the_files_folder_and_may_not_leave_it(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(noise(1)))
    records = open_records(table(tmp_path / "x.parquet", image=["a.png", "/etc/passwd"], text=["a", "b"]))
    assert open_image(records[0].media[0]).tobytes() == noise(1).tobytes()
    with pytest.raises(DataError, match=rf"^{tmp_path}/x.parquet:1: expected media inside {tmp_path}, found '/etc/pa"):
        records[1]


def test_a_file_that_changes_is_no_fault_of_a_sample(tmp_path: Path) -> None:
    file = captions(tmp_path / "x.parquet", range(20))
    records = open_records(file, late=True)
    records[0]
    captions(file, range(50, 70))
    with pytest.raises(DataError, match="expected the file that was opened, found that it has changed; start again"):
        records[19]
    file.unlink()
    with pytest.raises(DataError, match="cannot be read: found no such file"):
        records[10]
    assert records[1].id == "r1", "of a row group that has been read already"


def test_what_large_files_hold_is_kept(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = captions(tmp_path / "x.parquet", range(20))
    open_records(file)
    assert not cache.exists()
    monkeypatch.setattr(parquet_table, "KEPT_FROM", 20)
    first = everything(open_records(file))
    (kept,) = cache.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(parquet_file.ParquetFile, "groups", None)
        assert everything(open_records(file)) == first
    kept.write_bytes(kept.read_bytes()[:-9])
    assert everything(open_records(file)) == first
    captions(file, range(50, 71))
    assert len(open_records(file)) == 21
    assert kept_arrays.KEPT_FROM == 10_000


@pytest.mark.parametrize("missing", ["pyarrow.parquet", "pyarrow"])
def test_without_the_extra_one_line_names_it(tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = captions(tmp_path / "x.parquet", range(3))
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(DataError, match=r"expected the package pyarrow, .* found none; pip install 'mmbridge\[hf\]'$"):
        open_records(file)


def test_can_be_packed(tmp_path: Path) -> None:
    file = captions(tmp_path / "x.parquet", range(20))
    assert pack(file, tmp_path / "out").images == 18
    packed, records = open_records(tmp_path / "out"), open_records(file)
    assert [packed[n].text for n in range(20)] == [records[n].text for n in range(20)]
    assert packed[1].media[0].source == encoded(noise(1, 64))
