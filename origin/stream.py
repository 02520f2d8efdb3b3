"""The stream endpoint: a signed token in, the bytes of one file out.

Invariant: nothing is looked up before the token's MAC was good, and nothing is answered but in this order:
503 without a secret, 401, 410, 404, 412, 304, 416, 206 or 200. No response shows a path, and a refusal does
not say which of its reasons it was; the log does, without the token or the path.
"""

from __future__ import annotations

import logging
import os
from base64 import urlsafe_b64decode
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any

from contracts.best_source import STREAM_PATH
from contracts.errors import ExpiredToken, TokenError
from contracts.keyring import KeyRing
from contracts.tokens import OriginClaims, verify_origin_token
from origin.conditions import Validators
from origin.files import Files, Track
from origin.key_source import KeySource
from origin.lookup import CatalogueUnavailable
from origin.media import content_disposition, content_type, extension, track_name
from origin.reply import Headers, answer_method, answer_with_file, path_below, refuse
from origin.roots import LocatorRefused, OutOfDescriptors

if TYPE_CHECKING:
    from litestar.types import HTTPScope, Receive, Send

logger = logging.getLogger("origin")

SECRET_IN_STATE = "private_origin_secret"

# RFC 9110, section 8.8.2.2: a date is a strong validator only when the file cannot have changed twice within
# that second; FAT counts in steps of two.
_SETTLED_S = 2
_ETAG_CONTEXT = b"music-cloud/etag/1\0"  # No token begins so: its first byte is its version.


class StreamEndpoint:
    """An ASGI application for the paths below `STREAM_PATH`; `clock` gives Unix seconds."""

    def __init__(
        self, keys: KeySource, files: Files, max_token_ttl_s: int | None, clock: Callable[[], float]
    ) -> None:
        self._keys = keys
        self._files = files
        self._max_token_ttl_s = max_token_ttl_s
        self._clock = clock

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        token = path_below(scope, STREAM_PATH)
        if token is None:
            await refuse(scope, send, 404)
            return
        if await answer_method(scope, send):
            return
        state: Any = scope["litestar_app"].state
        ring = await self._keys.ring(state.get(SECRET_IN_STATE))
        if ring is None:
            logger.info("a request was refused, because the origin has no secret")
            await refuse(scope, send, 503)
            return
        now = self._clock()
        try:
            claims = verify_origin_token(ring, token, now)
        except ExpiredToken:
            await refuse(scope, send, 410)
            return
        except TokenError as error:
            logger.info("a token was refused: %s", error)
            await refuse(scope, send, 401)
            return
        if reason := self._reason_against(claims, scope, now):
            logger.info("a token was refused: %s", reason)
            await refuse(scope, send, 401)
            return
        try:
            track = await self._files.open(claims.locator)
        except LocatorRefused as error:
            logger.info("no file for a token: %s", error)
            await refuse(scope, send, 404)
            return
        except (CatalogueUnavailable, OutOfDescriptors) as error:
            logger.warning("a request could not be answered: %s", error)
            await refuse(scope, send, 503)
            return
        try:
            await answer_with_file(
                scope,
                receive,
                send,
                track.file,
                _validators(ring, token, track.file.stat, now),
                now=now,
                cache_control=f"private, max-age={int(claims.expires_at - now)}",
                entity_headers=_entity_headers(claims, track),
            )
        finally:
            track.file.close()

    def _reason_against(self, claims: OriginClaims, scope: HTTPScope, now: float) -> str | None:
        """Why a token that we signed is not accepted from this client; None when it is."""
        if self._max_token_ttl_s is not None and claims.expires_at - now > self._max_token_ttl_s:
            return f"it lives longer than {self._max_token_ttl_s} s"
        if claims.client_network and not _is_inside(claims.client_network, scope["client"]):
            return "the client is not in its network"
        return None


@lru_cache(maxsize=256)
def _network(text: str) -> IPv4Network | IPv6Network:
    return ip_network(text)


def _is_inside(network: str, client: tuple[str, int] | None) -> bool:
    """Whether the peer's address lies in a network. An IPv4 client of an IPv6 socket is one of IPv4."""
    try:
        address = ip_address(client[0].partition("%")[0] if client else "")
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address in _network(network)


def _validators(ring: KeyRing, token: str, status: os.stat_result, now: float) -> Validators:
    """The validators of a file: its tag changes with every change, and shows neither path, inode nor time.

    The change time counts as well, which nobody can set back. The key is the one that signed the token, so
    that a tag stays the same for as long as its link lives, whatever happens to the ring.
    """
    key = ring.with_kid(urlsafe_b64decode(token[:8])[2:6])[0]  # docs/format.md, "Bytes".
    identity = f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}"
    etag = f'"{key.mac(_ETAG_CONTEXT + identity.encode("ascii"))[:16].hex()}"'
    modified_s = int(status.st_mtime)
    return Validators(status.st_size, etag, modified_s if 0 <= modified_s < now - _SETTLED_S else None)


def _entity_headers(claims: OriginClaims, track: Track) -> Headers:
    name = claims.file_name or track_name(track.location_id, track.extension)
    media_type = content_type(track.extension or extension(claims.file_name))
    return [
        (b"content-type", media_type.encode("ascii")),
        (b"content-disposition", content_disposition(claims.disposition, name).encode("ascii")),
    ]
