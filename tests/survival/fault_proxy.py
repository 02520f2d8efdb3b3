"""An HTTP proxy in front of a real S3 server that does to requests and answers what bad networks do.

Invariant: which fault strikes is decided by the seed, the method, the kind of object and how many such
requests there were before, and by nothing else; so that a seed that failed fails again. A server that is
reached through it is told the `Host` that the client has signed (Signature Version 4). Every pointer that was
written through it is remembered, because a stale read is the answer of yesterday.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlsplit

# SO_LINGER with 0 seconds: close with a reset (socket(7)).
_RESET = struct.pack("ii", 1, 0)
_STALL_MAX_S = 5.0  # a client's own patience is far shorter; only ends the thread of a test that failed
_TIMEOUT_S = 30.0
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}  # RFC 9110, section 7.6.1


class Fault(StrEnum):
    """What can go wrong with one request."""

    ERROR = "500"
    UNAVAILABLE = "503"
    THROTTLED = "429 with Retry-After"
    RESET_BEFORE = "reset before the effect"
    RESET_AFTER = "reset after the effect"
    LOST_ANSWER = "answer lost in silence"
    STALL = "stall before the effect"
    TRUNCATED_ANSWER = "truncated answer"
    CORRUPT_ANSWER = "corrupt answer"
    TRUNCATED_UPLOAD = "truncated upload"
    CORRUPT_UPLOAD = "corrupt upload"
    TWICE = "passed on twice"
    LATE = "passed on once more, later"
    STALE = "stale pointer"


_STATUSES = {Fault.ERROR: 500, Fault.UNAVAILABLE: 503, Fault.THROTTLED: 429}
# What can befall a request of this method.
_ANY = [
    Fault.ERROR,
    Fault.UNAVAILABLE,
    Fault.THROTTLED,
    Fault.RESET_BEFORE,
    Fault.RESET_AFTER,
    Fault.LOST_ANSWER,
    Fault.STALL,
]
_BY_METHOD = {
    "GET": [*_ANY, Fault.TRUNCATED_ANSWER, Fault.CORRUPT_ANSWER],
    "PUT": [*_ANY, Fault.TRUNCATED_UPLOAD, Fault.CORRUPT_UPLOAD, Fault.TWICE, Fault.LATE],
    "DELETE": [*_ANY, Fault.TWICE, Fault.LATE],
}
_SLOW = {Fault.STALL, Fault.LOST_ANSWER}  # cost the client its patience, so they are rarer

Schedule = Callable[[str, str, int], Fault | None]
"""Called with the method, the kind of object, and how many such requests came before."""


def calm(method: str, kind: str, number: int) -> Fault | None:
    """The schedule without a fault."""
    return None


def seeded(seed: int, rate: float) -> Schedule:
    """Faults in so many of the requests; in twice as many of those for the pointer, which are few."""

    def decide(method: str, kind: str, number: int) -> Fault | None:
        dice = random.Random(f"{seed}:{method}:{kind}:{number}")
        if dice.random() >= (2 * rate if kind == "pointer" else rate):
            return None
        faults = _BY_METHOD.get(method, _ANY)
        if (method, kind) == ("GET", "pointer"):
            faults = [*faults, Fault.STALE, Fault.STALE, Fault.STALE]
        return dice.choices(faults, [1 if fault in _SLOW else 4 for fault in faults])[0]

    return decide


class Request(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def kind(self) -> str:
        """What it is about, whatever its digest."""
        name = urlsplit(self.path).path
        if name.endswith("/manifest.json"):
            return "pointer"
        parts = name.strip("/").split("/")
        return parts[-2] if len(parts) > 2 and parts[-2] in ("blobs", "manifests", "keys") else "other"


class Answer(NamedTuple):
    """An answer as it goes."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        """A header's value, or ""."""
        return next((value for key, value in self.headers if key.lower() == name), "")


class FaultProxy:
    """Listens on a free port of the loopback interface; `schedule` may be set at any time.

    `struck` counts the faults that did strike, `requests` all that came.
    """

    def __init__(self, upstream_url: str) -> None:
        host, port = urlsplit(upstream_url).hostname, urlsplit(upstream_url).port
        assert host is not None
        self.upstream = (host, port)
        self.schedule: Schedule = calm
        self.struck: Counter[Fault] = Counter()
        self.requests = 0
        self._lock = threading.Lock()
        self._numbers: Counter[tuple[str, str]] = Counter()
        self._pointers: defaultdict[str, list[Answer]] = defaultdict(list)
        self._late: list[Request] = []
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up()
        self._server.server_close()  # joins the threads of its connections

    def begin(self, schedule: Schedule) -> None:
        """Count anew, and let these faults strike."""
        with self._lock:
            self._numbers.clear()
            self._pointers.clear()
            self._late.clear()
            self.schedule = schedule

    def calm_down(self) -> None:
        """No faults from now on. What was to come late comes now: a network at rest holds nothing back."""
        with self._lock:
            self.schedule = calm
        self._pass_on_late()

    def decide(self, request: Request) -> Fault | None:
        """What befalls this request."""
        with self._lock:
            key = (request.method, request.kind)
            number = self._numbers[key]
            self._numbers[key] += 1
            self.requests += 1
            fault = self.schedule(request.method, request.kind, number)
            if fault is Fault.STALE and len(self._pointers[request.path]) < 2:
                fault = None  # there is nothing older
            if fault is not None:
                self.struck[fault] += 1
            if fault is Fault.LATE:
                self._late.append(request)
                return fault
        if number % 5 == 4:
            self._pass_on_late()
        return fault

    def stale_pointer(self, request: Request) -> Answer:
        """A pointer that was the newest once; or "not modified", when that is what the client has."""
        with self._lock:
            older = self._pointers[request.path][:-1]
        answer = random.Random(len(older)).choice(older)
        etag = answer.header("etag")
        if any(key.lower() == "if-none-match" and value == etag for key, value in request.headers):
            return Answer(304, "Not Modified", [("ETag", etag)], b"")
        return answer

    def note(self, request: Request, answer: Answer) -> None:
        """Remember a pointer that was written."""
        if request.method == "PUT" and request.kind == "pointer" and answer.status == 200:
            headers = [("ETag", answer.header("etag")), ("Content-Type", "application/json")]
            with self._lock:
                self._pointers[request.path].append(Answer(200, "OK", headers, request.body))

    def _pass_on_late(self) -> None:
        with self._lock:
            late, self._late = self._late, []
        for request in late:
            link = Link(self)
            try:
                link.pass_on(request)
            finally:
                link.close()


class Link:
    """One connection to the server behind the proxy."""

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy
        self._connection = HTTPConnection(*proxy.upstream, timeout=_TIMEOUT_S)

    def pass_on(self, request: Request, body: bytes | None = None) -> Answer:
        """The server's answer to a request; `body`, when given, is sent instead of its own.

        Raises: OSError, HTTPException.
        """
        self._put_head(request)
        self._connection.endheaders(request.body if body is None else body)
        response = self._connection.getresponse()
        answer = Answer(
            response.status,
            response.reason,
            [(name, value) for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP],
            response.read(),
        )
        self._proxy.note(request, answer)
        return answer

    def break_off(self, request: Request) -> None:
        """Send half of a request's body, and hang up. Raises: OSError, HTTPException."""
        self._put_head(request)
        self._connection.endheaders(request.body[: len(request.body) // 2])
        self._connection.close()

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _put_head(self, request: Request) -> None:
        self._connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
        for name, value in request.headers:
            self._connection.putheader(name, value)


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # they are joined when it closes
    request_queue_size = 64

    def __init__(self, proxy: FaultProxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()

    def process_request(self, request: object, client_address: object) -> None:
        assert isinstance(request, socket.socket)
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: object) -> None:
        assert isinstance(request, socket.socket)
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End every connection, so that its thread does."""
        with self._open_lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves in the middle is what these tests are about."""
        import sys

        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # as it came


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = _TIMEOUT_S
    server: _Server

    def setup(self) -> None:
        super().setup()
        self._link: Link | None = None

    def finish(self) -> None:
        if self._link is not None:
            self._link.close()
        super().finish()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        headers = [(name, value) for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP]
        request = Request(self.command, self.path, headers, self.rfile.read(length))
        fault = self.server.proxy.decide(request)
        try:
            self._serve(request, fault)
        except HTTPException:  # the server behind has hung up
            self._reset()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _serve(self, request: Request, fault: Fault | None) -> None:
        if fault in _STATUSES:
            status = _STATUSES[fault]
            self._send(request, Answer(status, "Fault", [("Retry-After", "1")] if status == 429 else [], b""))
        elif fault is Fault.RESET_BEFORE:
            self._reset()
        elif fault is Fault.STALL:
            self._stall()
        elif fault is Fault.STALE:
            self._send(request, self.server.proxy.stale_pointer(request))
        elif fault in (Fault.TRUNCATED_UPLOAD, Fault.CORRUPT_UPLOAD) and request.body:
            self._spoil_upload(request, fault)
        else:
            self._spoil_answer(request, self._pass_on(request), fault)

    def _spoil_upload(self, request: Request, fault: Fault) -> None:
        if fault is Fault.CORRUPT_UPLOAD:
            self._send(request, self._pass_on(request, _flip(request.body, self.server.proxy.requests)))
            return
        self._open_link().break_off(request)
        self._reset()

    def _spoil_answer(self, request: Request, answer: Answer, fault: Fault | None) -> None:
        if fault is Fault.RESET_AFTER:
            self._reset()
        elif fault is Fault.LOST_ANSWER:
            self._stall()
        elif fault is Fault.TWICE:
            self._send(request, self._pass_on(request))
        elif fault is Fault.TRUNCATED_ANSWER and answer.body:
            self._send(request, answer, answer.body[: len(answer.body) // 2])
            self.close_connection = True
        elif fault is Fault.CORRUPT_ANSWER and answer.body:
            self._send(request, answer, _flip(answer.body, self.server.proxy.requests))
        else:
            self._send(request, answer)

    def _pass_on(self, request: Request, body: bytes | None = None) -> Answer:
        return self._open_link().pass_on(request, body)

    def _open_link(self) -> Link:
        if self._link is None:
            self._link = Link(self.server.proxy)
        return self._link

    def _send(self, request: Request, answer: Answer, body: bytes | None = None) -> None:
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.headers:
            if name.lower() != "content-length":
                self.send_header(name, value)
        # Of a HEAD it is the object's length; of a truncated answer, that of the whole one.
        length = answer.header("content-length") if request.method == "HEAD" else str(len(answer.body))
        if answer.status not in (204, 304):
            self.send_header("Content-Length", length or "0")
        self.end_headers()
        if request.method != "HEAD":
            self.wfile.write(answer.body if body is None else body)

    def _stall(self) -> None:
        """Say nothing until the client has had enough."""
        self.connection.settimeout(_STALL_MAX_S)
        with suppress(OSError):
            self.connection.recv(1)
        self.close_connection = True

    def _reset(self) -> None:
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.close_connection = True


def _flip(body: bytes, number: int) -> bytes:
    """The body of a request with one bit of it changed: a digit becomes another digit, and JSON stays JSON.

    Each time at another place: nobody could tell a line that always damages the same bit from the truth.
    """
    spoiled = bytearray(body)
    spoiled[random.Random(number).randrange(len(body))] ^= 1
    return bytes(spoiled)
