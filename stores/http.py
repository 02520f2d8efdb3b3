"""A bucket behind plain HTTP(S), read only: what a public mirror polls.

Invariant: bytes come as they are stored (no content coding), redirects are not followed, and an answer that
is neither the object nor a plain refusal is "unavailable", never "missing". No answer holds anybody for long,
however slowly its headers or its body come.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from contracts.errors import AccessDenied, ObjectMissing, StoreError, StoreUnavailable
from stores.base import (
    PIECE_BYTES,
    ObjectInfo,
    Reading,
    parse_etag,
    parse_rest,
    parse_retry_after,
    parse_size,
)
from stores.patient import patient_pools

_TIMEOUT = urllib3.Timeout(connect=5.0, read=30.0)
_IDENTITY = {"Accept-Encoding": "identity"}
_DRAIN_BYTES = 64 << 10


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
        pools = self._pool.pool_classes_by_scheme
        self._pool.pool_classes_by_scheme = patient_pools(pools, clock, lambda method, url: None)

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
            return Reading(
                _info(response, key, start), _pieces(response, key, skip), partial(_release, response)
            )
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


def _info(response: urllib3.BaseHTTPResponse, key: str, start: int = 0) -> ObjectInfo:
    if response.headers.get("Content-Encoding", "identity") not in ("identity", "aws-chunked", ""):
        raise StoreUnavailable(f"{key} came with a content coding, although none was accepted")
    if response.status == 206:
        size_bytes = parse_rest(response.headers.get("Content-Range", ""), start, key)
    else:
        size_bytes = parse_size(response.headers.get("Content-Length"), key)
    return ObjectInfo(size_bytes, parse_etag(response.headers.get("ETag", "")))


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
