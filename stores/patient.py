"""Connections whose answers neither drip for ever nor have no end; both adapters stand on them.

Invariant: every byte of an answer is read through `PatientStream`, from the first of its status line on. A
socket's own timeout only ends a silence; what comes too slowly ends here (stores/pace.py), and so do more
bytes than a head or a body may have. Only the body of an object is as long as it likes: its reader knows.
"""

from __future__ import annotations

import http.client
import io
import socket
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

from stores.pace import is_too_slow

# A status line and headers, interim answers before them, and the body of a refusal. http.client takes 100
# headers of 64 KiB, and interim answers without end.
HEAD_MAX_BYTES = 1 << 20

Clock = Callable[[], float]
"""Seconds that never go back."""
BodyLimit = Callable[[str, str], int | None]
"""How many bytes an answer to this method and target may have; None for any number: it is an object."""


class PatientStream(io.RawIOBase):
    """What comes from a socket, while it comes fast enough and is not too much.

    `left_bytes` are those that may still come, None for any number; `began` were read before. Raises OSError.
    """

    def __init__(self, connection: socket.socket, clock: Clock, began: bytes = b"") -> None:
        self._stream = connection.makefile("rb", buffering=0)
        self._clock = clock
        self._began = began
        self._received_bytes = 0
        self._waited_s = 0.0
        self.left_bytes: int | None = HEAD_MAX_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._began:
            size_bytes = min(len(buffer), len(self._began))
            buffer[:size_bytes], self._began = self._began[:size_bytes], self._began[size_bytes:]
            return size_bytes
        asked_s = self._clock()
        received_bytes = self._stream.readinto(buffer) or 0
        self._waited_s += self._clock() - asked_s
        self._received_bytes += received_bytes
        if is_too_slow(self._received_bytes, self._waited_s):
            raise OSError(f"came too slowly: {self._received_bytes} bytes in {self._waited_s:.0f} s")
        if self.left_bytes is not None:
            self.left_bytes -= received_bytes
            if self.left_bytes < 0:
                raise OSError(f"no end after {self._received_bytes} bytes of an answer that is no object")
        return received_bytes

    def close(self) -> None:
        self._stream.close()
        super().close()


class PatientResponse(http.client.HTTPResponse):
    """An answer that is read through `PatientStream`; `body_max_bytes` as a `BodyLimit` says."""

    def __init__(
        self,
        clock: Clock,
        body_max_bytes: int | None,
        sock: socket.socket,
        *args: Any,
        began: bytes = b"",
        **options: Any,
    ) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self._patient = PatientStream(sock, clock, began)
        self._body_max_bytes = body_max_bytes
        self.fp = io.BufferedReader(self._patient)

    def begin(self) -> None:
        super().begin()
        if 200 <= self.status < 300:
            self._patient.left_bytes = self._body_max_bytes


class _PatientConnection(http.client.HTTPConnection):
    """Goes before a library's own connection class, which it changes only in what its answers are."""

    patient_clock: Clock
    body_limit: BodyLimit

    def putrequest(self, method: str, url: str, *args: Any, **options: Any) -> None:
        limit = self.body_limit(method, url)
        self.response_class = partial(PatientResponse, self.patient_clock, limit)  # type: ignore[assignment]
        super().putrequest(method, url, *args, **options)

    def _handle_expect_response(self, message_body: Any) -> None:
        """What botocore calls when something comes before the body of a request was sent.

        Its own reads lines of any length, at any pace, and for ever from a server that has left.
        """
        with closing(PatientStream(self.sock, self.patient_clock)) as stream:
            line = stream.readline()
            if line.split(None, 2)[1:2] != [b"100"]:  # the answer itself: nobody waits for the body
                answer: Any = self.response_class
                self.response_class = partial(answer, began=line)  # type: ignore[assignment]
                self._response_received = True
                return
            while line not in (b"\r\n", b"\n"):
                line = stream.readline()
                if not line:
                    raise ConnectionError("the connection was closed in the middle of an interim answer")
        if message_body is not None:
            self.send(message_body)


def patient_connection(kind: type[Any], clock: Clock, body_limit: BodyLimit) -> type[Any]:
    """A connection class like `kind`, which is one of http.client or made from it, with patient answers."""
    parts = {
        "patient_clock": staticmethod(clock),
        "body_limit": staticmethod(body_limit),
        # Of a proxy that is asked for a tunnel, which is before any request.
        "response_class": staticmethod(partial(PatientResponse, clock, HEAD_MAX_BYTES)),
    }
    return type(f"Patient{kind.__name__}", (_PatientConnection, kind), parts)


def patient_pools(pools: dict[str, type[Any]], clock: Clock, body_limit: BodyLimit) -> dict[str, type[Any]]:
    """The pool classes of urllib3, or of botocore, each with connections that are patient."""
    return {
        scheme: type(
            f"Patient{pool.__name__}",
            (pool,),
            {"ConnectionCls": patient_connection(pool.ConnectionCls, clock, body_limit)},
        )
        for scheme, pool in pools.items()
    }
