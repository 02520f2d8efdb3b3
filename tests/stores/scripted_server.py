"""An HTTP server on a raw socket that answers what it is told to, however wrong.

Invariant: one connection carries one request and one answer; nothing is added to the bytes of the script.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

_ACCEPT_TIMEOUT_S = 30.0  # ends the thread of a test that failed
# SO_LINGER with 0 seconds: close with a reset (socket(7)).
_RESET = struct.pack("ii", 1, 0)


class Request(NamedTuple):
    """What a client asked: header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]


class Reset(bytes):
    """An answer after which the connection is reset, not closed."""


Answer = bytes | Callable[[Request], bytes]


class ScriptedServer:
    """Gives one answer after the other, the last one again and again; `requests` is what it was asked."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.requests: list[Request] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(_ACCEPT_TIMEOUT_S)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # the test is over
                return
            with connection:
                connection.settimeout(_ACCEPT_TIMEOUT_S)
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        asked = b""
        while b"\r\n\r\n" not in asked:
            received = connection.recv(65536)
            if not received:
                return
            asked += received
        request = _parse(asked)
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        stored = answer(request) if callable(answer) else answer
        try:
            connection.sendall(stored)
            if isinstance(stored, Reset):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            else:
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):  # a close with unread bytes would be a reset
                    pass
        except OSError:
            pass  # the client has heard enough


def _parse(asked: bytes) -> Request:
    first, *lines = asked.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Request(method, path, headers)


def http(status: str, body: bytes = b"", length: int | None = None, **headers: str) -> bytes:
    """An answer; `length` is what it says its length is, -1 for nothing said."""
    head = [f"HTTP/1.1 {status}", "Connection: close"]
    if length != -1:
        head.append(f"Content-Length: {len(body) if length is None else length}")
    head += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def http_range(content: bytes, etag: str = '"1"') -> Callable[[Request], bytes]:
    """An answer that honours ranges of the form `bytes=N-` (RFC 9110, section 14)."""

    def answer(request: Request) -> bytes:
        start = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
        said = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return http("206 Partial Content", content[start:], Content_Range=said, ETag=etag)

    return answer
