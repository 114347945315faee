"""Shards from a web server on this machine: whole or not at all, once, and over http alone."""

import multiprocessing
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import pytest

from mmbridge.data import download
from mmbridge.data.download import fetched
from mmbridge.data.formats import open_source
from mmbridge.data.media import open_image
from mmbridge.data.writers import write_shards
from mmbridge.errors import DataError
from tests.data.pictures import noise, record


class Server:
    """Serves shards of three records each; ``faults`` says how the next answers for a path go wrong."""

    def __init__(self, shards: Path) -> None:
        self.faults: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.stuck = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                faults = outer.faults.get(self.path, [])
                fault = faults.pop(0) if faults else ""
                file = shards / Path(self.path.partition("?")[0]).name
                if fault.isdecimal() or not file.exists():
                    self.send_error(int(fault or 404))
                    return
                if fault.startswith("to "):
                    self.send_response(302)
                    self.send_header("Location", fault[3:])
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                data = file.read_bytes()
                if fault == "slow":
                    time.sleep(0.5)
                self.send_response(200)
                chunked = fault.endswith("chunked")
                name, value = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(data)))
                self.send_header(name, value)
                self.end_headers()
                body = data[: len(data) // 2] if fault.startswith(("cut", "stuck")) else data
                self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body) if chunked else body)
                if fault == "stuck":
                    self.wfile.flush()
                    outer.stuck.set()
                    time.sleep(60)
                if fault == "chunked":
                    self.wfile.write(b"0\r\n\r\n")
                self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "mmbridge" / "shards"


@pytest.fixture
def server(tmp_path: Path, cache: Path) -> Iterator[Server]:
    write_shards([record(index) for index in range(6)], tmp_path / "served", per_shard=3)
    server = Server(tmp_path / "served")
    yield server
    server.close()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_pattern_of_shards_is_downloaded_once(server: Server, cache: Path, tmp_path: Path) -> None:
    for _ in range(2):
        source = open_source(f"{server.url}/{{000000..000001}}.tar", task="caption")
        assert [source[index].id for index in range(len(source))] == [f"r{index}" for index in range(6)]
        assert open_image(source[4].media[0]).tobytes() == noise(4).tobytes()
    assert server.asked == ["/000000.tar", "/000001.tar"]
    assert files(cache) == ["000000.tar", "000001.tar"]
    first, second = fetched([f"{server.url}/000000.tar", f"{server.url}/000000.tar?version=2"])
    assert first != second
    assert first.read_bytes() == second.read_bytes() == (tmp_path / "served/000000.tar").read_bytes()


@pytest.mark.parametrize("fault", ["cut", "cut chunked", "503"])
def test_what_may_pass_is_tried_again(server: Server, cache: Path, fault: str) -> None:
    server.faults["/000000.tar"] = [fault, fault]
    assert len(open_source(f"{server.url}/000000.tar", task="caption")) == 3
    assert len(server.asked) == 3
    assert files(cache) == ["000000.tar"]


def test_a_body_of_unknown_length_is_taken(server: Server) -> None:
    server.faults["/000000.tar"] = ["chunked"]
    assert len(open_source(f"{server.url}/000000.tar", task="caption")) == 3
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("faults", "line", "asked"),
    [
        (["cut"] * 3, "cannot be downloaded: expected 10,240 bytes, found 5,120; check the address", 3),
        (["404"], "cannot be downloaded: 404 Not Found", 1),
        (["to file:///etc/passwd"], "cannot be downloaded: 302 .*file:///etc/passwd' is not allowed", 1),
        (["to ftp://127.0.0.1/0.tar"], "expected redirects to http or https, found one to 'ftp://127", 1),
    ],
)
def test_what_fails_leaves_nothing(server: Server, cache: Path, faults: list[str], line: str, asked: int) -> None:
    server.faults["/000000.tar"] = faults
    with pytest.raises(DataError, match=f"^{server.url}/000000.tar: {line}"):
        open_source(f"{server.url}/000000.tar")
    assert len(server.asked) == asked
    assert files(cache) == []


def test_redirects_over_http_are_followed(server: Server) -> None:
    server.faults["/000000.tar"] = [f"to {server.url}/000001.tar"]
    source = open_source(f"{server.url}/000000.tar", task="caption")
    assert source[0].id == "r3"


@pytest.mark.parametrize("fault", ["", "chunked"])
def test_more_bytes_than_the_cap_are_not_taken(server: Server, cache: Path, fault: str) -> None:
    server.faults["/000000.tar"] = [fault]
    with pytest.raises(DataError, match="expected a shard of at most 1,000 bytes, found 10,240"):
        fetched([f"{server.url}/000000.tar"], largest=1000)
    assert files(cache) == []


def test_what_is_no_address_of_a_shard(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSES", ())
    for url, line in (
        ("http://127.0.0.1:9/0.tar", "cannot be downloaded: .*refused"),
        ("http://[/0.tar", "expected a URL, found a fault in it"),
        ("http://a b/0.tar", "expected a URL, found a fault in it"),
        ("https:///0.tar", "expected http or https and a host, found no host"),
        ("http://x.org/data.json", "expected the URL of a .tar shard, found data.json"),
        ("http://x.org/..", "expected the URL of a .tar shard, found"),
        ("file:///etc/passwd.tar", "expected http or https and a host, found file"),
    ):
        with pytest.raises(DataError, match=line):
            fetched([url])
    assert files(cache) == []


def test_a_cache_that_cannot_be_written(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match="cannot be written"):
        fetched([f"{server.url}/000000.tar"])


@pytest.fixture
def processes() -> Iterator[Pool]:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        yield pool


def test_processes_that_want_the_same_shards_download_each_once(
    server: Server, cache: Path, tmp_path: Path, processes: Pool
) -> None:
    urls = [f"{server.url}/00000{n}.tar" for n in range(2)]
    server.faults = {f"/00000{n}.tar": ["slow", "slow"] for n in range(2)}
    for paths in processes.map(fetched, [urls, urls], chunksize=1):
        served = [(tmp_path / "served" / f"00000{n}.tar").read_bytes() for n in range(2)]
        assert [path.read_bytes() for path in paths] == served
    assert sorted(server.asked) == ["/000000.tar", "/000001.tar"]
    assert files(cache) == ["000000.tar", "000001.tar"]


def test_a_process_killed_while_downloading_holds_nobody_up(server: Server, cache: Path) -> None:
    url = f"{server.url}/000000.tar"
    server.faults["/000000.tar"] = ["stuck"]
    process = multiprocessing.get_context("spawn").Process(target=fetched, args=([url],))
    process.start()
    assert server.stuck.wait(60)
    assert len(files(cache)) == 2, "a part and a lock"
    process.kill()
    process.join()
    assert len(open_source(url, task="caption")) == 3
    assert files(cache) == ["000000.tar"]
