"""`/metrics` and `/readyz`: what an operator's programs ask.

Invariant: no page of another site may read them, so nothing here allows it; nothing is stored. Who may not
read the metrics cannot tell them from a path that does not exist.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

import msgspec

from origin.client_address import TrustedProxies, client_address, parse_address
from origin.gate import Gate, Refused
from origin.logs import event
from origin.metrics import CONTENT_TYPE, Metrics
from origin.readiness import Missing, Readiness
from origin.reply import ERROR_BODIES, Headers, path_below, refuse

if TYPE_CHECKING:
    from litestar.types import HTTPScope, Receive, Send

logger = logging.getLogger("origin")

METRICS_PATH = "/metrics"
READY_PATH = "/readyz"

_METHODS = ("GET", "HEAD")
_JSON = b"application/json"
# What a proxy adds: then the peer is not who asks.
_FORWARDED = frozenset({b"forwarded", b"via", b"x-forwarded-for", b"x-real-ip"})


def may_read(
    peer: tuple[str, int] | None,
    headers: Iterable[tuple[bytes, bytes]],
    networks: Iterable[IPv4Network | IPv6Network],
    trusted: TrustedProxies,
) -> bool:
    """Whether who asks is in one of the networks; `peer` and `headers` as for `client_address`.

    A trusted proxy is believed about the client and is never the client itself; any other is nobody's word.
    """
    headers = list(headers)
    name = peer[0] if peer else ""
    address = client_address(peer, headers, trusted)
    if address is None or trusted.has(address):
        return False
    if address == parse_address(name) and any(header in _FORWARDED for header, _ in headers):
        return False
    return any(address in network for network in networks)


class MetricsEndpoint:
    """An ASGI application for `METRICS_PATH`, for clients of these networks."""

    def __init__(
        self, metrics: Metrics, networks: Iterable[IPv4Network | IPv6Network], trusted: TrustedProxies
    ) -> None:
        self._metrics = metrics
        self._networks = tuple(networks)
        self._trusted = trusted

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        is_here = path_below(scope, METRICS_PATH) == ""
        if not is_here or not may_read(scope["client"], scope["headers"], self._networks, self._trusted):
            await refuse(scope, send, 404)
        elif scope["method"] not in _METHODS:
            await _refuse_method(scope, send)
        else:
            await _answer(scope, send, 200, CONTENT_TYPE, self._metrics.text())


class ReadyEndpoint:
    """An ASGI application for `READY_PATH`: 200, or 503 with what is missing."""

    def __init__(self, gate: Gate, readiness: Readiness) -> None:
        self._gate = gate
        self._readiness = readiness
        self._missing: list[Missing] | None = None  # As it was logged last.

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        if path_below(scope, READY_PATH) != "":
            await refuse(scope, send, 404)
            return
        if scope["method"] not in _METHODS:
            await _refuse_method(scope, send)
            return
        try:
            await self._gate.ring(scope)
        except Refused:
            missing = await self._readiness.missing(has_secret=False)
        else:
            missing = await self._readiness.missing(has_secret=True)
        self._log(missing)
        body = msgspec.json.encode(
            {"status": "unavailable", "missing": missing} if missing else {"status": "ready"}
        )
        await _answer(scope, send, 503 if missing else 200, _JSON, body)

    def _log(self, missing: list[Missing]) -> None:
        """Only what is new: somebody asks every few seconds."""
        if missing == self._missing:
            return
        if missing:
            words = ",".join(missing)
            logger.warning("not ready: %s", words, extra=event("not_ready", missing=words))
        else:
            logger.info("ready", extra=event("ready"))
        self._missing = missing


async def _refuse_method(scope: HTTPScope, send: Send) -> None:
    await _answer(scope, send, 405, _JSON, ERROR_BODIES[405], [(b"allow", b"GET, HEAD")])


async def _answer(
    scope: HTTPScope, send: Send, status: int, content_type: bytes, body: bytes, more: Headers | None = None
) -> None:
    headers = [
        *(more or ()),
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    shown = b"" if scope["method"] == "HEAD" else body
    await send({"type": "http.response.body", "body": shown, "more_body": False})
