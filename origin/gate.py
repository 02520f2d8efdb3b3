"""Who is let in: the one place that decides what a token is worth to the client that shows it.

Invariant: 503 without a secret, then 401, then 410, and nothing is looked up before that. A refusal does not
say which of its reasons it was; `refusals` counts and logs it, when the endpoint notes it.
What a token asserts is remembered for the very key ring that verified it, because a player shows the same one
many times; whether it counts now, and for this client, is decided each time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from contracts.errors import (
    BadSignature,
    ExpiredToken,
    MalformedToken,
    NotYetValid,
    TokenError,
    UnknownKey,
    WrongKind,
)
from contracts.keyring import KeyRing
from contracts.tokens import OriginClaims, TokenKind, verify_origin_token
from origin.client_address import NOBODY, TrustedProxies, client_address, is_inside
from origin.key_source import KeySource
from origin.refusals import Reason, Refusals
from origin.remembered import Remembered

if TYPE_CHECKING:
    from litestar.types import HTTPScope

SECRET_IN_STATE = "private_origin_secret"
_REMEMBERED = 1024  # Tokens and their claims: 0.5 MB as they are, 8 MB at their longest.

_REASONS = {
    MalformedToken: Reason.MALFORMED,
    UnknownKey: Reason.UNKNOWN_KEY,
    BadSignature: Reason.BAD_SIGNATURE,
    WrongKind: Reason.WRONG_KIND,
    NotYetValid: Reason.NOT_YET_VALID,
}


class Refused(Exception):
    """A request that is not let in, the status to answer and the reason to count; its text is for the log."""

    def __init__(self, status: int, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason


class Admitted(NamedTuple):
    """What a token asserts, the keys that counted, and the moment of the request in Unix seconds."""

    claims: OriginClaims
    ring: KeyRing
    now: float


class Gate:
    """Decides with the keys of the moment; `clock` gives Unix seconds."""

    def __init__(
        self,
        keys: KeySource,
        clock: Callable[[], float],
        max_token_ttl_s: int | None = None,
        trusted_proxies: TrustedProxies = NOBODY,
    ) -> None:
        self.clock = clock
        self.max_token_ttl_s = max_token_ttl_s
        self.refusals = Refusals()
        self._keys = keys
        self._trusted_proxies = trusted_proxies
        self._verified: Remembered[tuple[TokenKind, str], OriginClaims] = Remembered(_REMEMBERED, math.inf)

    async def enter(self, scope: HTTPScope, token: str, kind: TokenKind = TokenKind.STREAM) -> Admitted:
        """Let a request with a token of this kind in.

        Raises:
            Refused: 503, 401 or 410, in that order.
        """
        ring = await self.ring(scope)
        now = self.clock()
        return Admitted(self.admit(ring, scope, token, now, kind), ring, now)

    async def ring(self, scope: HTTPScope) -> KeyRing:
        """The keys that count now.

        Raises:
            Refused: 503, there is no secret.
        """
        state: Any = scope["litestar_app"].state
        ring = await self._keys.ring(state.get(SECRET_IN_STATE))
        if ring is None:
            raise Refused(503, Reason.NO_SECRET, "the origin has no secret")
        return ring

    def admit(
        self, ring: KeyRing, scope: HTTPScope, token: str, now: float, kind: TokenKind = TokenKind.STREAM
    ) -> OriginClaims:
        """What a token of this kind asserts, when it counts for this client.

        Raises:
            Refused: 401 or 410.
        """
        claims = self._verified.get((kind, token), ring, 0)
        if claims is None or not claims.not_before <= now < claims.expires_at:
            try:
                claims = verify_origin_token(ring, token, now, kind=kind)
            except ExpiredToken as error:
                raise Refused(410, Reason.EXPIRED, str(error)) from None
            except TokenError as error:
                raise Refused(401, _REASONS[type(error)], str(error)) from None
            self._verified.put((kind, token), claims, ring, 0)
        if self.max_token_ttl_s is not None and claims.expires_at - now > self.max_token_ttl_s:
            detail = f"the token lives longer than {self.max_token_ttl_s} s"
            raise Refused(401, Reason.TOO_LONG_LIFE, detail)
        if claims.client_network:
            client = client_address(scope["client"], scope["headers"], self._trusted_proxies)
            if not is_inside(claims.client_network, client):
                raise Refused(401, Reason.NETWORK, "the client is not in the token's network")
        return claims

    def note(self, refusal: Refused) -> None:
        """Count and log a refusal; whoever answers it calls this, once."""
        self.refusals.note(refusal.reason, refusal.status, str(refusal))
