"""A bucket behind plain HTTP(S), read only: what a public mirror polls.

Invariant: bytes come as they are stored (no content coding), redirects are not followed, and an answer that
is neither the object nor a plain refusal is "unavailable", never "missing". No answer holds anybody for long,
however slowly its headers or its body come.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from contracts.errors import AccessDenied, ObjectMissing, StoreError, StoreUnavailable
from stores.base import PIECE_BYTES, ObjectInfo, Reading, parse_retry_after, parse_size
from stores.pace import is_too_slow

_TIMEOUT = urllib3.Timeout(connect=5.0, read=30.0)
_IDENTITY = {"Accept-Encoding": "identity"}
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")  # RFC 9110, section 14.4
_DRAIN_BYTES = 64 << 10
# RFC 9110, section 8.8.3, and what some servers send without its quotes. "*" or a list would mean something
# else in If-None-Match, and servers refuse headers of some KiB: either would blind a mirror for good.
_ETAG = re.compile(r'(?:W/)?"[!\x23-\x7e\x80-\xff]{0,250}"|[0-9A-Za-z._:+/=-]{1,250}')


class HttpStore:
    """The bucket at a base URL; safe between threads. Patience goes by `clock`: seconds, never back."""

    def __init__(
        self,
        base_url: str,
        connections: int = 8,
        timeout: urllib3.Timeout = _TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            parts = urlsplit(base_url)
            urllib3.util.parse_url(base_url)
        except (ValueError, HTTPError) as error:  # such as a bracket that is not closed
            raise StoreError(f"{base_url!r} is not an http(s) address") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise StoreError(f"{base_url!r} is not an http(s) address")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise StoreError("the address of a store has no user, password, query or fragment")
        self.address = base_url.rstrip("/")
        self._pool = urllib3.PoolManager(
            maxsize=connections, block=True, timeout=timeout, retries=False, headers=_IDENTITY
        )
        self._pool.pool_classes_by_scheme = _patient_pools(clock)

    def head(self, key: str) -> ObjectInfo:
        response = self._request("HEAD", key)
        try:
            return _info(response, key)
        finally:
            _release(response)

    def get(self, key: str, start: int = 0) -> Reading:
        response = self._request("GET", key, {"Range": f"bytes={start}-"} if start else {})
        return self._reading(response, key, start)

    def get_if_changed(self, key: str, etag: str) -> Reading | None:
        headers = {"Cache-Control": "no-cache"}
        if etag:
            headers["If-None-Match"] = etag
        response = self._request("GET", key, headers)
        if response.status == 304:
            _release(response)
            return None
        return self._reading(response, key, 0)

    def close(self) -> None:
        """Close every connection."""
        self._pool.clear()

    def _request(
        self, method: str, key: str, headers: dict[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        with _store_errors(key):
            response = self._pool.request(
                method,
                f"{self.address}/{key}",
                headers={**_IDENTITY, **(headers or {})},
                preload_content=False,
                redirect=False,
            )
        if response.status in (200, 206) or (response.status == 304 and "If-None-Match" in (headers or {})):
            return response
        _release(response)
        raise _refusal(response, key, self.address)

    def _reading(self, response: urllib3.BaseHTTPResponse, key: str, start: int) -> Reading:
        try:
            # A server may ignore ranges (RFC 9110, section 14.2).
            skip = start if response.status == 200 else 0
            if response.status == 206 and not _is_rest(response, start):
                raise StoreUnavailable(f"{self.address} answered another range of {key} than was asked for")
            return Reading(_info(response, key), _pieces(response, key, skip), partial(_release, response))
        except BaseException:
            _release(response)
            raise


@contextmanager
def _store_errors(key: str) -> Iterator[None]:
    try:
        yield
    except (HTTPError, OSError) as error:
        raise StoreUnavailable(f"{key}: {type(error).__name__}: {error.__cause__ or error}") from error


def _refusal(response: urllib3.BaseHTTPResponse, key: str, address: str) -> StoreError:
    status = response.status
    if status in (404, 410):
        return ObjectMissing(key, address)
    if status in (401, 403):
        return AccessDenied(f"{address} refuses {key} (status {status}); a missing object may look so too")
    if status in (304, 429) or status >= 500:  # "not modified" answers no question that was asked
        retry_after_s = parse_retry_after(response.headers.get("Retry-After"), response.headers.get("Date"))
        return StoreUnavailable(f"{address} answered {key} with status {status}", retry_after_s)
    if 300 <= status < 400:
        target = response.headers.get("Location", "elsewhere")
        return StoreError(f"{address} redirects {key} to {target}; use that address")
    return StoreError(f"{address} answered {key} with status {status}")


def _is_rest(response: urllib3.BaseHTTPResponse, start: int) -> bool:
    """Whether a partial answer holds all from `start` on: a shorter one would end without an error."""
    first, last, size_bytes = _content_range(response)
    return first == start and last == size_bytes - 1


def _content_range(response: urllib3.BaseHTTPResponse) -> tuple[int, int, int]:
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None:
        raise StoreUnavailable("a partial answer without a valid Content-Range")
    return int(match[1]), int(match[2]), int(match[3])


def _info(response: urllib3.BaseHTTPResponse, key: str) -> ObjectInfo:
    if response.headers.get("Content-Encoding", "identity") not in ("identity", "aws-chunked", ""):
        raise StoreUnavailable(f"{key} came with a content coding, although none was accepted")
    if response.status == 206:
        size_bytes = _content_range(response)[2]
    else:
        size_bytes = parse_size(response.headers.get("Content-Length"), key)
    etag = response.headers.get("ETag", "")
    return ObjectInfo(size_bytes, etag if _ETAG.fullmatch(etag) else "")


def _pieces(response: urllib3.BaseHTTPResponse, key: str, skip: int) -> Iterator[bytes]:
    try:
        with _store_errors(key):
            # `read1` gives what has come: a server that sends a byte now and then holds nobody for long.
            while piece := response.read1(PIECE_BYTES, decode_content=False):
                if skip >= len(piece):
                    skip -= len(piece)
                    continue
                yield piece[skip:]
                skip = 0
    finally:
        _release(response)


def _release(response: urllib3.BaseHTTPResponse) -> None:
    """Give the connection back when little is left on it, else close it."""
    if response.length_remaining is not None and 0 <= response.length_remaining <= _DRAIN_BYTES:
        try:
            response.drain_conn()
        except (HTTPError, OSError):
            response.close()
    else:
        response.close()
    response.release_conn()


class _PatientStream(io.RawIOBase):
    """What comes from a socket, while it comes fast enough; a socket's own timeout only ends a silence."""

    def __init__(self, connection: socket.socket, clock: Callable[[], float]) -> None:
        self._stream = connection.makefile("rb", buffering=0)
        self._clock = clock
        self._received_bytes = 0
        self._waited_s = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        asked_s = self._clock()
        received_bytes = self._stream.readinto(buffer) or 0
        self._waited_s += self._clock() - asked_s
        self._received_bytes += received_bytes
        if is_too_slow(self._received_bytes, self._waited_s):
            raise OSError(f"came too slowly: {self._received_bytes} bytes in {self._waited_s:.0f} s")
        return received_bytes

    def close(self) -> None:
        self._stream.close()
        super().close()


class _PatientResponse(http.client.HTTPResponse):
    """An answer whose status line and headers, too, are read through `_PatientStream`."""

    def __init__(self, clock: Callable[[], float], sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_PatientStream(sock, clock))


def _patient_pools(clock: Callable[[], float]) -> dict[str, Any]:
    """urllib3's pools, of connections whose answers are patient ones."""
    response_class = {"response_class": partial(_PatientResponse, clock)}
    plain = type("_PatientConnection", (HTTPConnection,), response_class)
    over_tls = type("_PatientTlsConnection", (HTTPSConnection,), response_class)
    return {
        "http": type("_PatientPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("_PatientTlsPool", (HTTPSConnectionPool,), {"ConnectionCls": over_tls}),
    }
