"""A web server on this machine that gives parts of files, and counts what it gives."""

import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


class RangeServer:
    """Serves a folder.

    ``served`` counts bytes of files by path and ``parts`` the ranges that were asked for; ``faults`` are the statuses
    of the next answers for a path; with ``whole`` it takes no notice of ranges.
    """

    whole = False

    def __init__(self, folder: Path) -> None:
        self.served: dict[str, int] = defaultdict(int)
        self.parts: list[tuple[str, int, int]] = []
        self.faults: dict[str, list[int]] = {}
        self.folder = folder
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                outer.answer(self, folder, body=False)

            def do_GET(self) -> None:
                outer.answer(self, folder, body=True)

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:  # a worker that has ended
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler, folder: Path, body: bool) -> None:
        path = unquote(urlsplit(request.path).path)
        faults, file = self.faults.get(path, []), folder / path.lstrip("/")
        if (body and faults) or not file.is_file():
            request.send_error(faults.pop(0) if body and faults else 404)
            return
        data = file.read_bytes()
        begin, end = 0, len(data)
        asked = None if self.whole else request.headers.get("Range")
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin, end = int(first), min(int(last) + 1, len(data))
        request.send_response(206 if asked else 200)
        request.send_header("Content-Length", str(end - begin))
        request.send_header("ETag", f'"{file.stat().st_mtime_ns:x}-{len(data):x}"')
        if asked:
            request.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        request.end_headers()
        if body:
            self.served[path] += end - begin
            if asked:
                self.parts.append((path, begin, end))
            try:
                request.wfile.write(data[begin:end])
            except ConnectionError:  # whoever asked has seen enough
                request.close_connection = True

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
