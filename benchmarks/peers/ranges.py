"""A small HTTP server of files with byte ranges, which counts the bytes of the bodies that it sends.

`http.server` knows no ranges, and zchunk asks for many at once.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_BOUNDARY = "next-part"


class RangeServer(ThreadingHTTPServer):
    """Serves one folder on a free port of the loopback interface."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.sent_bytes = 0
        self.counting = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    server: RangeServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.server.folder / Path(self.path).name
        if not path.is_file():
            self.send_error(404)
            return
        size_bytes = path.stat().st_size
        pairs = re.findall(r"(\d+)-(\d+)", self.headers.get("Range", ""))
        ranges = [(int(first), min(int(last), size_bytes - 1)) for first, last in pairs]
        with path.open("rb") as stream:
            parts = []
            for first, last in ranges or [(0, size_bytes - 1)]:
                stream.seek(first)
                parts.append(stream.read(last - first + 1))
        headers = {}
        if len(ranges) == 1:
            headers["Content-Range"] = f"bytes {ranges[0][0]}-{ranges[0][1]}/{size_bytes}"
        elif ranges:
            headers["Content-Type"] = f"multipart/byteranges; boundary={_BOUNDARY}"
            parts = [
                b"\r\n--%s\r\nContent-Range: bytes %d-%d/%d\r\n\r\n%s"
                % (_BOUNDARY.encode(), first, last, size_bytes, part)
                for (first, last), part in zip(ranges, parts, strict=True)
            ]
            parts.append(b"\r\n--%s--\r\n" % _BOUNDARY.encode())
        body = b"".join(parts)
        self.send_response(206 if ranges else 200)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        with self.server.counting:
            self.server.sent_bytes += len(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def range_server(folder: Path) -> Iterator[RangeServer]:
    with RangeServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
