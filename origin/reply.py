"""What every response of the origin has in common: headers, small JSON errors, and a file as its body.

Invariant: one status has one body, whatever was the reason, so that an error teaches nobody anything;
errors are never stored; every response lets a web page of any origin read it, without credentials. Which
status it is, is decided in `origin.conditions` and by the endpoints.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import unquote

import msgspec

from origin.accel import nginx_agrees
from origin.conditions import Validators, decide
from origin.http_dates import format_http_date
from origin.logs import event, request_id
from origin.multipart import multipart
from origin.open_file import OpenFile
from origin.ranges import ByteRange
from origin.sender import Outcome, send_stretch

if TYPE_CHECKING:
    from litestar.types import HTTPScope, Receive, Send

logger = logging.getLogger("origin")

Headers = list[tuple[bytes, bytes]]

ALLOWED_METHODS: Final = "GET, HEAD, OPTIONS"
# Long enough for a lock to be released, short enough that a player tries again by itself.
RETRY_AFTER_S = 2

_ERRORS = {
    400: ("bad_request", "The request is not valid."),
    401: ("unauthorized", "The link is not valid here."),
    404: ("not_found", "There is nothing here."),
    405: ("method_not_allowed", "This method is not answered here."),
    410: ("expired", "The link has expired."),
    412: ("precondition_failed", "The file is not the one that the request is about."),
    413: ("content_too_large", "The request is larger than any that is answered."),
    415: ("unsupported_media_type", "The request is of a type that is not answered."),
    416: ("range_not_satisfiable", "The file has no such bytes."),
    429: ("too_many_requests", "The link is used too much."),
    500: ("internal_error", "Something is wrong here."),
    503: ("unavailable", "This cannot be answered now."),
}
ERROR_BODIES: Final = {
    status: msgspec.json.encode({"error": error, "detail": detail})
    for status, (error, detail) in _ERRORS.items()
}

# Fetch, section 3.3.3: what a page may read beyond the safelisted headers; other sites may embed us (CORP).
# The address holds a token, so no Referer; and nobody should guess a type that we know.
COMMON_HEADERS: Final[Headers] = [
    (b"access-control-allow-origin", b"*"),
    (
        b"access-control-expose-headers",
        b"Accept-Ranges, Content-Disposition, Content-Length, Content-Range, ETag, Repr-Digest, Retry-After, "
        b"X-Request-Id",
    ),
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]
_STATUS_HEADERS: Final[dict[int, Headers]] = {
    # RFC 9110, section 15.5.2, demands a challenge; a token in the address is nearest to RFC 6750's.
    401: [(b"www-authenticate", b'Bearer realm="private-origin"')],
    405: [(b"allow", ALLOWED_METHODS.encode())],  # Section 15.5.6.
    503: [(b"retry-after", str(RETRY_AFTER_S).encode())],  # Section 15.6.4.
}
_PREFLIGHT: Final[Headers] = [
    *COMMON_HEADERS,
    (b"allow", ALLOWED_METHODS.encode()),  # RFC 9110, section 9.3.7.
    (b"access-control-allow-methods", ALLOWED_METHODS.encode()),
    (
        b"access-control-allow-headers",
        b"Cache-Control, If-Match, If-Modified-Since, If-None-Match, If-Range, If-Unmodified-Since, Range",
    ),
    (b"access-control-max-age", b"86400"),  # Fetch, section 3.3.3; browsers cap it lower.
]
_READ_HEADERS = {
    name.encode(): name
    for name in (
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "range",
    )
}


def error_headers(status: int, more: Iterable[tuple[bytes, bytes]] = ()) -> Headers:
    """The headers of an error with the body `ERROR_BODIES[status]`."""
    return [
        *COMMON_HEADERS,
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(ERROR_BODIES[status])),
        (b"cache-control", b"no-store"),
        (b"x-request-id", request_id().encode("ascii")),
        *_STATUS_HEADERS.get(status, ()),
        *more,
    ]


async def refuse(scope: HTTPScope, send: Send, status: int, more: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Answer with the error of that status."""
    body = b"" if scope["method"] == "HEAD" else ERROR_BODIES[status]
    await send({"type": "http.response.start", "status": status, "headers": error_headers(status, more)})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def answer_method(scope: HTTPScope, send: Send) -> bool:
    """Answer a CORS preflight (Fetch, section 3.2.2), refuse what is not GET or HEAD; False for those."""
    if scope["method"] in ("GET", "HEAD"):
        return False
    if scope["method"] == "OPTIONS":
        await send({"type": "http.response.start", "status": 204, "headers": _PREFLIGHT})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    else:
        await refuse(scope, send, 405)
    return True


async def token_asked_for(scope: HTTPScope, send: Send, prefix: str) -> str | None:
    """The token in the address of a GET or HEAD; None when the request was answered without looking at it."""
    token = path_below(scope, prefix)
    if token is None:
        await refuse(scope, send, 404)
        return None
    return None if await answer_method(scope, send) else token


async def answer_with_file(
    scope: HTTPScope,
    receive: Receive,
    send: Send,
    file: OpenFile,
    validators: Validators,
    *,
    now: float,
    cache_control: str,
    entity_headers: Iterable[tuple[bytes, bytes]],
    redirect: bytes | None = None,
) -> None:
    """Answer a GET or HEAD with an open file, as its preconditions and its range ask for.

    `entity_headers` describe the whole file (its type, its name, its digest) and are left out of 304 and of
    errors. A file that becomes shorter meanwhile ends the connection: the length was promised. `redirect` is
    what the peer, an nginx that we trust, may be told to send the bytes by itself (`origin.accel`).
    """
    conditions = _read_headers(scope)
    status, ranges = decision = decide(scope["method"], conditions, validators, now)
    size_bytes = validators.size_bytes
    if status == 412:
        await refuse(scope, send, 412)
        return
    if status == 416:
        # RFC 9110, section 14.4: the size, so that the client can ask again.
        await refuse(scope, send, 416, [(b"content-range", b"bytes */%d" % size_bytes)])
        return
    headers = [
        *COMMON_HEADERS,
        (b"etag", validators.etag.encode("ascii")),
        (b"cache-control", cache_control.encode("ascii")),
        (b"accept-ranges", b"bytes"),
    ]
    if status == 304:  # Section 15.4.5: nothing that describes the representation, a digest included.
        await send({"type": "http.response.start", "status": 304, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    headers += entity_headers
    if validators.last_modified_s is not None:
        headers.append((b"last-modified", format_http_date(validators.last_modified_s).encode("ascii")))
    if redirect is not None and nginx_agrees(scope["method"], conditions, decision):
        await _hand_over(send, headers, redirect, is_range=status == 206)
        return
    if len(ranges) > 1:
        outcome = await _send_parts(scope, receive, send, file, ranges, size_bytes, headers)
    else:
        byte_range = ranges[0] if ranges else ByteRange(0, size_bytes - 1)
        if ranges:
            headers.append((b"content-range", b"bytes %d-%d/%d" % (*byte_range, size_bytes)))
        headers.append((b"content-length", b"%d" % byte_range.length_bytes))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if scope["method"] == "HEAD" or not byte_range.length_bytes:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        outcome = await send_stretch(
            file, byte_range.first, byte_range.length_bytes, receive, send, scope=scope
        )
    if outcome is Outcome.CUT_SHORT:
        logger.warning(
            "a file became shorter or unreadable while it was sent; the connection is closed",
            extra=event("cut_short"),
        )


async def _hand_over(send: Send, headers: Headers, redirect: bytes, *, is_range: bool) -> None:
    """Answer with no byte, for nginx to send them. `headers` are those of the whole file.

    nginx repeats Accept-Ranges, adds its own to a whole file, and none to a range (1.22,
    ngx_http_range_header_filter).
    """
    kept = [header for header in headers if is_range or header[0] != b"accept-ranges"]
    kept += [(b"x-accel-redirect", redirect), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 200, "headers": kept})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_parts(
    scope: HTTPScope,
    receive: Receive,
    send: Send,
    file: OpenFile,
    ranges: tuple[ByteRange, ...],
    size_bytes: int,
    headers: Headers,
) -> Outcome:
    """Answer with several ranges: RFC 9110, section 15.3.7.2. `headers` are those of the whole file.

    No Content-Range stands outside the parts, and the file's type only inside. The boundary has 128 random
    bits, so that nobody can put it into a file beforehand.
    """
    media_type = dict(headers)[b"content-type"]
    body = multipart(ranges, size_bytes, media_type, secrets.token_hex(16).encode("ascii"))
    outer = [header for header in headers if header[0] != b"content-type"]
    outer += [(b"content-type", body.content_type), (b"content-length", b"%d" % body.length_bytes)]
    await send({"type": "http.response.start", "status": 206, "headers": outer})
    for head, (first, last) in body.parts:
        await send({"type": "http.response.body", "body": head, "more_body": True})
        length_bytes = last - first + 1
        outcome = await send_stretch(file, first, length_bytes, receive, send, is_last=False, scope=scope)
        if outcome is not Outcome.COMPLETE:
            return outcome
    await send({"type": "http.response.body", "body": body.tail, "more_body": False})
    return Outcome.COMPLETE


def path_below(scope: HTTPScope, prefix: str) -> str | None:
    """What a request's path has after `prefix`, percent-decoded once; None when it does not have it.

    Taken from the path as it was sent: Litestar's own is normalised, and a token has one spelling.
    """
    raw = cast("bytes | None", scope.get("raw_path"))  # Optional: ASGI, "HTTP Connection Scope".
    path = scope["path"] if raw is None else unquote(raw.partition(b"?")[0].decode("latin-1"))
    _, found, rest = path.partition(prefix)
    return rest if found else None


def _read_headers(scope: HTTPScope) -> dict[str, str]:
    """The headers that decide, by lower-case name; repeated ones joined (RFC 9110, section 5.3)."""
    read: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name = _READ_HEADERS.get(raw_name)
        if name is not None:
            value = raw_value.decode("latin-1").strip(" \t")  # Section 5.5; not every server does it.
            read[name] = f"{read[name]}, {value}" if name in read else value
    return read
