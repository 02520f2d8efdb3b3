"""The smallest application that sends files with `origin.sender`, in a real server, and raw clients."""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from origin import serving
from origin.open_file import OpenFile
from origin.sender import Outcome, send_stretch


class FileServer:
    """Serves `folder`: `GET /NAME`, or `/NAME?FIRST` for the file from a byte on; HEAD has no body.

    `outcomes` gets what `send_stretch` returned, and how many bytes it said were sent.
    """

    def __init__(self, folder: Path, *, is_portable: bool = False) -> None:
        self.folder = folder
        self.is_portable = is_portable
        self.offered: list[bool] = []
        self.outcomes: queue.Queue[tuple[Outcome, int]] = queue.Queue()
        self.threads = ThreadPoolExecutor(4)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.offered.append("http.response.zerocopysend" in scope.get("extensions", {}))
        file = OpenFile(os.open(self.folder / scope["path"].lstrip("/"), os.O_RDONLY), self.threads)
        sent: list[int] = []
        try:
            first = int(scope["query_string"] or 0)
            length = file.stat.st_size - first
            headers = [(b"content-length", b"%d" % length)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            offering = None if self.is_portable else scope
            outcome = await send_stretch(
                file, first, length, receive, send, scope=offering, on_sent=sent.append
            )
            self.outcomes.put((outcome, sum(sent)))
        finally:
            file.close()


@contextmanager
def file_server(
    folder: Path, *, is_portable: bool = False, stall_limit_s: float = 20, shutdown_s: int = 1
) -> Iterator[tuple[FileServer, str]]:
    """A server for a folder, and its base URL."""
    app = FileServer(folder, is_portable=is_portable)
    with serving(app, stall_limit_s=stall_limit_s, shutdown_s=shutdown_s) as base_url:
        yield app, base_url
    app.threads.shutdown()


def connect(base_url: str, receive_bytes: int = 0) -> socket.socket:
    """A connection; with `receive_bytes` its kernel buffer holds about so much: the server must wait."""
    parts = urlsplit(base_url)
    client = socket.socket()
    client.settimeout(20)
    if receive_bytes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.connect((parts.hostname, parts.port))
    return client


def request(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode()


def read_head(client: socket.socket) -> tuple[int, int]:
    """The status and the Content-Length of the next response; not a byte of its body is taken."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = client.recv(1)
        assert byte, "the server closed the connection"
        head += byte
    lines = head.decode().lower()
    return int(lines.split()[1]), int(lines.partition("content-length: ")[2].split()[0])


def read_exactly(client: socket.socket, count: int) -> bytes:
    body = bytearray()
    while len(body) < count:
        piece = client.recv(min(1 << 20, count - len(body)))
        assert piece, f"the server closed the connection after {len(body)} bytes"
        body += piece
    return bytes(body)


def read_response(client: socket.socket) -> bytes:
    status, length = read_head(client)
    assert status == 200
    return read_exactly(client, length)


def read_to_end(client: socket.socket) -> bytes:
    """Everything until the server closes; a connection that is reset ends it as well."""
    body = bytearray()
    try:
        while piece := client.recv(1 << 20):
            body += piece
    except ConnectionResetError:
        pass
    return bytes(body)


def becomes(condition: Callable[[], bool]) -> bool:
    """Whether a condition becomes true within 20 s; the server is another thread."""
    pause = threading.Event()
    for _ in range(2000):
        if condition():
            return True
        pause.wait(0.01)
    return False
