"""One HTTP request as somebody sends it who has no credentials: a mirror, a browser, or whoever is curious.

Invariant: nothing of ours is in the request but what the caller puts there, redirects are not followed, and
the answer is given as it is, whatever its status. Python's own client, because botocore and urllib3 tidy up.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from contracts.errors import StoreError, StoreUnavailable
from stores.base import PIECE_BYTES
from stores.patient import patient_connection

_TIMEOUT_S = 10.0  # for connecting, and between two pieces


class Answer(NamedTuple):
    """What came back: header names in lower case, the beginning of the body, seconds until the headers."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


def ask_as_stranger(
    url: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    *,
    body: bytes | None = None,
    max_bytes: int = PIECE_BYTES,
    clock: Callable[[], float] = time.monotonic,
) -> Answer:
    """Send one request over a connection of its own; at most `max_bytes` of the answer's body are read.

    Raises:
        StoreError: when the URL is none.
        StoreUnavailable: when nobody answers, or something that is not HTTP, or too slowly.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise StoreError(f"{url!r} is not an http(s) address") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise StoreError(f"{url!r} is not an http(s) address")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    patient = patient_connection(kind, clock, lambda method, target: None)
    connection = patient(parts.hostname, port, timeout=_TIMEOUT_S)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        began_s = clock()
        connection.request(method, target, body, {"Accept-Encoding": "identity", **(headers or {})})
        with connection.getresponse() as response:
            seconds = clock() - began_s
            said = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, said, _read(response, max_bytes), seconds)
    except (OSError, http.client.HTTPException, UnicodeError, ValueError) as error:
        raise StoreUnavailable(f"{url}: {type(error).__name__}: {error}") from error
    finally:
        connection.close()


def _read(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    content = bytearray()
    while len(content) < max_bytes and (piece := response.read1(max_bytes - len(content))):
        content += piece
    return bytes(content)
