"""Parquet on servers of this machine: a plain one that counts bytes, and one that answers as the Hub does."""

import json
import multiprocessing
import re
import sys
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from mmbridge.data import download, parquet, parquet_file
from mmbridge.data.config import DataConfig, SkipConfig
from mmbridge.data.formats import open_records, open_source
from mmbridge.data.loader import Loader
from mmbridge.data.mixture import Mixture
from mmbridge.data.record import Record
from mmbridge.data.sources import DataSet
from mmbridge.errors import DataError, SourceError
from tests.data.parquets import captions
from tests.data.range_server import RangeServer
from tests.data.test_loader import COLLATE, assert_equal, ids

datasets: Any = pytest.importorskip("datasets", reason="needs the extra hf")
pytest.importorskip("aiohttp", reason="needs the extra hf")
pq: Any = pytest.importorskip("pyarrow.parquet")

NAMES = ("a.parquet", "b.parquet")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files of four and three row groups; each picture is 12 KB, which no compression makes less."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    captions(tmp_path / "served/a.parquet", range(32))
    captions(tmp_path / "served/b.parquet", range(32, 56))
    return tmp_path / "served"


@pytest.fixture
def server(folder: Path) -> Iterator[RangeServer]:
    server = RangeServer(folder)
    yield server
    server.close()


def everything(records: DataSet) -> list[Record]:
    return [records[index] for index in range(len(records))]


def said(records: list[Record]) -> list[tuple[Any, ...]]:
    """All of records but where they are."""
    return [(each.id, each.text, each.questions, [medium.source for medium in each.media]) for each in records]


def image_bytes(file: Path) -> int:
    metadata = pq.read_metadata(file)
    chunks = [metadata.row_group(group).column(0) for group in range(metadata.num_row_groups)]
    assert {chunk.path_in_schema for chunk in chunks} == {"image.bytes"}
    return int(sum(chunk.total_compressed_size for chunk in chunks))


def test_the_rows_are_those_of_the_files_on_disk(server: RangeServer, folder: Path) -> None:
    here = open_records(folder)
    for name in (f"{server.url}/{{a,b}}.parquet", f"{server.url}/{{a,b}}.parquet?download=true"):
        there = open_records(name)
        assert said(everything(there)) == said(everything(here))
        assert there.counts.tolist() == here.counts.tolist()
    assert there.where(33) == f"{server.url}/b.parquet?download=true:1"
    left = [path for path in (folder.parent / "cache").rglob("*") if path.is_file()]
    assert {path.suffix for path in left} == {".safetensors"}
    assert sum(path.stat().st_size for path in left) < 8000


def test_opening_fetches_no_image(server: RangeServer, folder: Path) -> None:
    source = open_source(f"{server.url}/{{a,b}}.parquet", task="caption")
    for name in NAMES:
        size = (folder / name).stat().st_size
        assert image_bytes(folder / name) > 0.9 * size
        assert server.served[f"/{name}"] < 65_536 + 0.1 * size, "the end of the file, where the footer is, and words"
        metadata = pq.read_metadata(folder / name)
        for group in range(metadata.num_row_groups - 1):  # the last one's images may lie within the end of the file
            chunk = metadata.row_group(group).column(0)
            begin = chunk.dictionary_page_offset or chunk.data_page_offset
            asked = [
                (first, last) for path, first, last in server.parts if path == f"/{name}" and last - first < 65_536
            ]
            end = begin + chunk.total_compressed_size
            assert not any(first < end - 9000 and last > begin + 9000 for first, last in asked)
    assert len(source) == 56


def test_what_was_counted_is_kept_until_the_file_changes(server: RangeServer, folder: Path) -> None:
    name = f"{server.url}/{{a,b}}.parquet"
    before = open_records(name).counts.tolist()
    server.served.clear()
    assert open_records(name).counts.tolist() == before
    assert not server.served
    captions(folder / "b.parquet", range(30, 60))
    assert len(open_records(name)) == 62
    assert set(server.served) == {f"/{each}" for each in NAMES}


@pytest.mark.parametrize("window", [2, 4])
def test_draws_fetch_each_row_group_once_an_epoch(
    server: RangeServer, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "MOST", window)
    source = open_source(f"{server.url}/{{a,b}}.parquet", task="caption")
    groups: list[tuple[str, int]] = []
    group = parquet_file.ParquetFile.group

    def noted(self: parquet_file.ParquetFile, number: int, rows: int) -> Any:
        groups.append((self.where(0), number))
        return group(self, number, rows)

    monkeypatch.setattr(parquet_file.ParquetFile, "group", noted)
    server.served.clear()
    server.parts.clear()
    drawn = [Mixture([source], [1.0], 3)[place].id for place in range(len(source))]
    assert sorted(drawn) == sorted(f"r{n}" for n in range(56))
    assert Counter(groups) == dict.fromkeys(groups, 1)
    assert len(groups) == 7
    sizes = {name: sum(end - begin for path, begin, end in server.parts if path == f"/{name}") for name in NAMES}
    folder_sizes = {name: 65_536 * sum(name in where for where, _ in groups) for name in NAMES}
    for name in NAMES:
        assert sizes[name] < folder_sizes[name] + 1.05 * image_bytes_of(server, name), "footers, and each image once"


def image_bytes_of(server: RangeServer, name: str) -> int:
    return image_bytes(server.folder / name)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(server: RangeServer, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are forked when the parent has read from the server already, and read from it themselves."""
    monkeypatch.setattr(parquet, "MOST", 2)
    name = f"{server.url}/{{a,b}}.parquet"
    files = {"mix": [{"kind": "files", "path": name, "task": "caption"}]}

    def loader(workers: int) -> Loader:
        mixture = DataConfig.model_validate(files).build(7)
        mixture[0]
        return Loader(mixture, COLLATE, batch=4, batches=30, workers=workers)

    alone = list(loader(0))
    assert len({each for batch in ids(alone[:14]) for each in batch}) == 56
    assert_equal(list(loader(workers)), alone)
    state = loader(0)
    batches = iter(state)
    for _ in range(17):
        next(batches)
    rest = loader(workers)
    rest.load_state(state.state())
    assert_equal(list(rest), alone[17:])


def test_it_can_be_sent_to_a_spawned_process(server: RangeServer) -> None:
    records = open_records(f"{server.url}/a.parquet")
    records[0]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (found,) = pool.map(records.__getitem__, [9])
    assert found == records[9]


@pytest.mark.parametrize("status", [503, 429])
def test_what_may_pass_is_tried_again(server: RangeServer, status: int) -> None:
    records = open_records(f"{server.url}/a.parquet")
    server.faults["/a.parquet"] = [status, status]
    assert records[3].id == "r3"
    assert not server.faults["/a.parquet"]


def test_a_server_that_is_gone_is_no_fault_of_a_sample(server: RangeServer) -> None:
    """Left out it would go unnoticed: the run stops, and can go on from there."""
    source = open_source(f"{server.url}/a.parquet", task="caption", late=True)
    server.faults["/a.parquet"] = [503] * 100
    loader = Loader(Mixture([source], [1.0], 0), COLLATE, batch=4, on_bad_sample=SkipConfig(skip_up_to=0.9))
    with pytest.raises(SourceError, match=r"a.parquet: cannot be read: 503 Service Unavailable; check the address and"):
        list(loader)
    server.faults["/a.parquet"] = []
    assert sum(map(len, loader)) == 32


def test_a_file_that_changes_while_it_is_read(server: RangeServer, folder: Path) -> None:
    records = open_records(f"{server.url}/a.parquet", late=True)
    captions(folder / "a.parquet", range(100, 132))
    with pytest.raises(SourceError, match=r"a.parquet: expected the file that was opened, found that it has changed"):
        records[0]
    (folder / "a.parquet").unlink()
    with pytest.raises(SourceError, match=r"a.parquet: cannot be read: 404 Not Found"):
        records[0]


@pytest.mark.parametrize("late", [False, True])
def test_what_cannot_be_opened_is_one_line(server: RangeServer, folder: Path, late: bool) -> None:
    (folder / "html.parquet").write_text("<html>not found</html>" * 10_000)
    cut = (folder / "a.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(cut[: len(cut) // 2])
    (folder / "empty.parquet").touch()
    for name, line in (
        (f"{server.url}/gone.parquet", "gone.parquet: cannot be read: 404 Not Found; check the address"),
        (f"{server.url}/{{a,gone}}.parquet", "gone.parquet: cannot be read: 404 Not Found"),
        (f"{server.url}/html.parquet", "expected a whole Parquet file, found a fault"),
        (f"{server.url}/cut.parquet", "expected a whole Parquet file, found a fault"),
        (f"{server.url}/empty.parquet", "expected a whole Parquet file, found a fault"),
        ("http://127.0.0.1:9/a.parquet", "a.parquet: cannot be read: Cannot connect to host 127.0.0.1:9"),
        ("http:///a.parquet", "a.parquet: cannot be read"),
        ("ftp://127.0.0.1/a.parquet", "expected a path, http, https or hf://datasets/, found ftp"),
        ("hf://datasets/org/name", "expected .parquet files of a data set on the Hub; name them, such as hf://"),
        ("hf://org/model/a.parquet", "expected .parquet files of a data set on the Hub; name them, such as hf://"),
    ):
        with pytest.raises(DataError, match=re.escape(line)) as caught:
            open_records(name, late=late)
        assert "\n" not in str(caught.value)


def test_a_server_that_gives_no_parts(server: RangeServer) -> None:
    server.whole = True
    line = "a.parquet: expected a server that gives parts of a file and says its size, found one that does not; downl"
    with pytest.raises(DataError, match=line):
        open_records(f"{server.url}/a.parquet")


def test_without_aiohttp_one_line_names_the_extra(server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(DataError, match=r"expected the package aiohttp, .* found none; pip install 'mmbridge\[hf\]'$"):
        open_records(f"{server.url}/a.parquet")


COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(RangeServer):
    """Answers for ``org/name`` and its branch ``refs/convert/parquet`` as huggingface.co does, as far as is asked.

    ``revisions`` are those that files were read at.
    """

    def __init__(self, folder: Path) -> None:
        self.revisions: set[str] = set()
        super().__init__(folder)

    def answer(self, request: BaseHTTPRequestHandler, folder: Path, body: bool) -> None:
        path = unquote(urlsplit(request.path).path)
        found = re.fullmatch(
            r"/api/datasets/org/name(?:/(revision|tree)/(main|refs/convert/parquet|\w{40})(.*))?", path
        )
        if found is None:
            resolved = re.fullmatch(rf"/datasets/org/name/resolve/(main|{COMMIT})(/.*)", path)
            request.path = resolved[2] if resolved else "/gone"
            self.revisions.update(resolved.groups()[:1] if resolved else ())
            super().answer(request, folder, body)
        elif found[1] == "tree":
            files = [each for each in sorted((folder / found[3].lstrip("/")).glob("*")) if each.is_file()]
            told = [
                {"type": "file", "path": str(each.relative_to(folder)), "size": each.stat().st_size, "oid": "0" * 40}
                for each in files
            ]
            self.say(request, told)
        else:
            self.say(request, {"id": "org/name", "sha": COMMIT})

    def say(self, request: BaseHTTPRequestHandler, value: Any) -> None:
        text = json.dumps(value).encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text)


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import HfFileSystem, constants

    hub = Hub(folder)
    # what HF_ENDPOINT sets when it is there at import
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    HfFileSystem.clear_instance_cache()
    yield hub
    HfFileSystem.clear_instance_cache()
    hub.close()


@pytest.mark.parametrize("revision", ["", "@refs/convert/parquet"])
def test_data_sets_on_the_hub(hub: Hub, folder: Path, revision: str) -> None:
    name = f"hf://datasets/org/name{revision}"
    there, here = open_records(f"{name}/*.parquet"), open_records(folder)
    assert sum(hub.served.values()) < 0.5 * sum(image_bytes(folder / each) for each in NAMES)
    assert said(everything(there)) == said(everything(here))
    assert there.where(33) == f"{name}/b.parquet:1"
    assert hub.revisions == {COMMIT}
    hub.served.clear()
    for pattern, count in (("*.parquet", 56), ("b.parquet", 24), ("{b,a}.parquet", 56)):
        assert len(open_records(f"{name}/{pattern}")) == count
    assert everything(open_records(f"{name}/{{b,a}}.parquet"))[24].id == "r0"
    for pattern in ("c.parquet", "c*.parquet", "no/*.parquet"):
        with pytest.raises(DataError, match=r"\.parquet: .*found (none|no such file; check)"):
            open_records(f"{name}/{pattern}")


def test_what_datasets_itself_streams_from_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
    name = "hf://datasets/org/name/*.parquet"
    rows = datasets.load_dataset("parquet", data_files=name, split="train", streaming=True)
    records = everything(open_records(name))
    rows = list(rows.cast_column("image", datasets.Image(decode=False)))
    assert [(row["id"], row["text"], row["image"] and row["image"]["bytes"]) for row in rows] == [
        (each.id, each.text, each.medium and each.medium.source) for each in records
    ]
    assert len(rows) == 56


def test_workers_read_from_the_hub(hub: Hub) -> None:
    def loader(workers: int) -> Loader:
        source = open_source("hf://datasets/org/name/*.parquet", task="caption")
        source[0]
        return Loader(Mixture([source], [1.0], 7), COLLATE, batch=4, workers=workers)

    assert_equal(list(loader(2)), list(loader(0)))


def test_what_the_hub_has_not_or_nobody_can_reach(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfFileSystem, constants

    with pytest.raises(DataError, match=r"hf://datasets/org/other/a.parquet: cannot be read: 404 Not Found; check"):
        open_records("hf://datasets/org/other/a.parquet")
    HfFileSystem.clear_instance_cache()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        DataError, match=r"hf://datasets/org/name/a.parquet: cannot be read: .*refused.*; check"
    ) as caught:
        open_records("hf://datasets/org/name/a.parquet")
    assert "\n" not in str(caught.value)
