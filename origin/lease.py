"""Renewal: a lease in the body of a POST becomes a fresh stream token for the same file.

Invariant: stateless, and nothing is looked up. What comes out names the same file and the same client network
as the lease, and a stream token never renews anything. The lease travels in the body, so that no log of any
proxy has it; the answer is for a web page of any site, without credentials.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from contracts.best_source import RENEW_PATH, STREAM_PATH, link_life_s
from contracts.keyring import KeyRing
from contracts.tokens import MAX_TIME_S, OriginClaims, TokenKind, create_origin_token
from origin.gate import Gate, Refused
from origin.refusals import Reason
from origin.reply import COMMON_HEADERS, ERROR_BODIES, Headers, error_headers, path_below, refuse

if TYPE_CHECKING:
    from litestar.types import HTTPScope, Receive, Send

# The longest token has 2,891 characters (contracts.tokens.MAX_TOKEN_CHARS), and a little JSON is around it.
BODY_LIMIT_BYTES = 4096
# It fits into a few packets; who needs longer is holding a connection, and uvicorn has no limit for a body.
BODY_LIMIT_S = 10.0

_ALLOW: Final = (b"allow", b"OPTIONS, POST")  # RFC 9110, section 15.5.6.
_PREFLIGHT: Final[Headers] = [
    *COMMON_HEADERS,
    (b"access-control-allow-methods", b"POST"),
    (b"access-control-allow-headers", b"Content-Type"),  # JSON is not safelisted: Fetch, section 2.2.2.
    (b"access-control-max-age", b"86400"),
]


class Fresh(NamedTuple):
    """A token that was just made, and its last second."""

    token: str
    expires_at: int


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    lease: str


_decode_body = msgspec.json.Decoder(_Body).decode


def renewed(
    ring: KeyRing, claims: OriginClaims, kind: TokenKind, now: float, max_token_ttl_s: int | None
) -> Fresh:
    """A token for what `claims` name, signed by the newest key, with a life of its own kind from now on."""
    life_s = link_life_s(claims.duration_s, max_token_ttl_s, kind)
    expires_at = min(int(now) + life_s, MAX_TIME_S)
    token = create_origin_token(
        ring,
        claims.locator,
        expires_at,
        kind=kind,
        duration_s=claims.duration_s,
        file_name=claims.file_name,
        disposition=claims.disposition,
        client_network=claims.client_network,
    )
    return Fresh(token, expires_at)


class RenewEndpoint:
    """An ASGI application for `RENEW_PATH`."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        if path_below(scope, RENEW_PATH) != "":
            await refuse(scope, send, 404)
        elif scope["method"] == "OPTIONS":
            await _send(send, 204, _PREFLIGHT, b"")
        elif scope["method"] != "POST":
            others = [header for header in error_headers(405) if header[0] != b"allow"]
            body = b"" if scope["method"] == "HEAD" else ERROR_BODIES[405]
            await _send(send, 405, [*others, _ALLOW], body)
        else:
            try:
                fresh = await self._renew(scope, receive)
            except Refused as refusal:
                self._gate.note(refusal)
                await refuse(scope, send, refusal.status)
                return
            answer = {
                "token": fresh.token,
                "path": f"{STREAM_PATH}{fresh.token}",
                "expires_at": fresh.expires_at,
            }
            await _send_json(send, msgspec.json.encode(answer))

    async def _renew(self, scope: HTTPScope, receive: Receive) -> Fresh:
        """Raises: Refused, with 503, 415, 413, 400, 401 or 410."""
        ring = await self._gate.ring(scope)
        if not _is_json(scope):
            raise Refused(415, Reason.BAD_REQUEST, "the body is not said to be JSON")
        lease = _lease_in(await _read_body(receive))
        now = self._gate.clock()
        claims = self._gate.admit(ring, scope, lease, now, TokenKind.LEASE)
        return renewed(ring, claims, TokenKind.STREAM, now, self._gate.max_token_ttl_s)


def _is_json(scope: HTTPScope) -> bool:
    types = [value for name, value in scope["headers"] if name == b"content-type"]
    return len(types) == 1 and types[0].partition(b";")[0].strip().lower() == b"application/json"


async def _read_body(receive: Receive) -> bytes:
    """The body of a request, which is not read further than to its limits.

    Raises:
        Refused: 413; or 400 to a client that has left or is too slow.
    """
    try:
        async with asyncio.timeout(BODY_LIMIT_S):
            return await _read_to_end(receive)
    except TimeoutError:
        raise Refused(400, Reason.BAD_REQUEST, f"the body took longer than {BODY_LIMIT_S} s") from None


async def _read_to_end(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Refused(400, Reason.BAD_REQUEST, "the client left")
        body += message.get("body", b"")
        if len(body) > BODY_LIMIT_BYTES:
            raise Refused(413, Reason.BAD_REQUEST, f"the body has more than {BODY_LIMIT_BYTES} bytes")
        if not message.get("more_body", False):
            return body


def _lease_in(body: bytes) -> str:
    """Raises: Refused, with 400."""
    try:
        return _decode_body(body).lease
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Refused(400, Reason.BAD_REQUEST, "the body holds no lease") from None


async def _send_json(send: Send, body: bytes) -> None:
    headers = [
        *COMMON_HEADERS,
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    await _send(send, 200, headers, body)


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
