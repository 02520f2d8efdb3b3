"""What every response of the origin has in common: headers, small JSON errors, and a file as its body.

Invariant: one status has one body, whatever was the reason, so that an error teaches nobody anything;
errors are never stored; every response lets a web page of any origin read it, without credentials. Which
status it is, is decided in `origin.conditions` and by the endpoints.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import unquote

import msgspec

from origin.conditions import Validators, decide
from origin.http_dates import format_http_date
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
    400: ("bad_request", "The request is not valid HTTP."),
    401: ("unauthorized", "The link is not valid here."),
    404: ("not_found", "There is nothing here."),
    405: ("method_not_allowed", f"Only {ALLOWED_METHODS} are answered."),
    410: ("expired", "The link has expired."),
    412: ("precondition_failed", "The file is not the one that the request is about."),
    416: ("range_not_satisfiable", "The file has no such bytes."),
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
        b"Accept-Ranges, Content-Disposition, Content-Length, Content-Range, ETag, Retry-After",
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


async def answer_with_file(
    scope: HTTPScope,
    receive: Receive,
    send: Send,
    file: OpenFile,
    validators: Validators,
    *,
    now: float,
    cache_control: str,
    entity_headers: Headers,
) -> None:
    """Answer a GET or HEAD with an open file, as its preconditions and its range ask for.

    `entity_headers` describe the whole file (its type, its name) and are left out where there is no body.
    A file that becomes shorter meanwhile ends the connection: the length was promised.
    """
    status, byte_range = decide(scope["method"], _read_headers(scope), validators, now)
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
    if status == 304:  # Section 15.4.5: nothing that describes the body.
        await send({"type": "http.response.start", "status": 304, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    headers += entity_headers
    if validators.last_modified_s is not None:
        headers.append((b"last-modified", format_http_date(validators.last_modified_s).encode("ascii")))
    if byte_range is None:
        byte_range = ByteRange(0, size_bytes - 1)
    else:
        headers.append((b"content-range", b"bytes %d-%d/%d" % (*byte_range, size_bytes)))
    headers.append((b"content-length", b"%d" % byte_range.length_bytes))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if scope["method"] == "HEAD" or not byte_range.length_bytes:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    outcome = await send_stretch(file, byte_range.first, byte_range.length_bytes, receive, send)
    if outcome is Outcome.CUT_SHORT:
        logger.warning("a file became shorter or unreadable while it was sent; the connection is closed")


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
            value = raw_value.decode("latin-1")
            read[name] = f"{read[name]}, {value}" if name in read else value
    return read
