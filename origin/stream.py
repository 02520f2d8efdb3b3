"""The stream endpoint: a signed token in, the bytes of one file out.

Invariant: nothing is looked up before the token's MAC was good, and nothing is answered but in this order:
503 without a secret, 401, 410, 404, 412, 304, 416, 206 or 200. No response shows a path, and a refusal does
not say which of its reasons it was; the log does, without the token or the path. 429 stands after 410 for
too many requests at once, and after 404 for a link that has been sent too much.
"""

from __future__ import annotations

import os
from base64 import urlsafe_b64decode
from functools import lru_cache
from typing import TYPE_CHECKING

from contracts.best_source import STREAM_PATH
from contracts.keyring import KeyRing, SigningKey
from origin.accel import Accel
from origin.conditions import Validators
from origin.files import Files
from origin.gate import Gate, Refused
from origin.limits import LinkLimited, LinkLimits
from origin.lookup import CatalogueUnavailable
from origin.media import content_disposition, content_type, extension, track_name
from origin.refusals import Reason
from origin.reply import answer_with_file, refuse, token_asked_for
from origin.roots import LocatorRefused, OutOfDescriptors

if TYPE_CHECKING:
    from litestar.types import HTTPScope, Receive, Send

# RFC 9110, section 8.8.2.2: a date is a strong validator only when the file cannot have changed twice within
# that second; FAT counts in steps of two.
_SETTLED_S = 2
_REMEMBERED = 1024  # Tags and headers, of some hundred bytes each: a player asks for one file many times.
_ETAG_CONTEXT = b"music-cloud/etag/1\0"  # No token begins so: its first byte is its version.


class StreamEndpoint:
    """An ASGI application for the paths below `STREAM_PATH`."""

    def __init__(self, gate: Gate, files: Files, limits: LinkLimits, *, accel: Accel | None = None) -> None:
        self._gate = gate
        self._files = files
        self._limits = limits
        self._accel = accel

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        token = await token_asked_for(scope, send, STREAM_PATH)
        if token is None:
            return
        try:
            claims, ring, now = await self._gate.enter(scope, token)
            with self._limits.connection(token, claims.expires_at, now) as usage:
                track = await self._files.open(claims.locator)
                try:
                    self._limits.check_bytes(usage, track.file.stat.st_size, now)
                    await answer_with_file(
                        scope,
                        receive,
                        usage.counting(send),
                        track.file,
                        _validators(ring, token, track.file.stat, now),
                        now=now,
                        cache_control=f"private, max-age={int(claims.expires_at - now)}",
                        entity_headers=_entity_headers(
                            claims.disposition, claims.file_name, track.location_id, track.extension
                        ),
                        redirect=self._accel and self._accel.redirect(scope, track.file.fileno()),
                    )
                finally:
                    track.file.close()
        except Refused as refusal:
            self._gate.note(refusal)
            await refuse(scope, send, refusal.status)
        except LinkLimited as error:
            self._gate.refusals.note(Reason.LINK_LIMITED, 429, str(error))
            await refuse(scope, send, 429, [(b"retry-after", b"%d" % error.retry_after_s)])
        except LocatorRefused as error:
            self._gate.refusals.note(Reason.NOT_FOUND, 404, str(error))
            await refuse(scope, send, 404)
        except CatalogueUnavailable as error:
            self._gate.refusals.note(Reason.CATALOGUE_UNAVAILABLE, 503, str(error))
            await refuse(scope, send, 503)
        except OutOfDescriptors as error:
            self._gate.refusals.note(Reason.NO_DESCRIPTORS, 503, str(error))
            await refuse(scope, send, 503)


def _validators(ring: KeyRing, token: str, status: os.stat_result, now: float) -> Validators:
    """The validators of a file. The key is the one that signed the token, so that a tag stays the same for as
    long as its link lives, whatever happens to the ring.
    """
    key = ring.with_kid(_kid_of(token[:8]))[0]
    etag = _etag(key, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    modified_s = int(status.st_mtime)
    return Validators(status.st_size, etag, modified_s if 0 <= modified_s < now - _SETTLED_S else None)


@lru_cache(maxsize=_REMEMBERED)
def _etag(key: SigningKey, size_bytes: int, mtime_ns: int, ctime_ns: int, inode: int) -> str:
    """A tag that changes with every change of a file, and shows neither path, inode nor time.

    The change time counts as well, which nobody can set back.
    """
    identity = f"{size_bytes}-{mtime_ns}-{ctime_ns}-{inode}"
    return f'"{key.mac(_ETAG_CONTEXT + identity.encode("ascii"))[:16].hex()}"'


@lru_cache(maxsize=64)  # As many as there are keys and kinds.
def _kid_of(token_begins: str) -> bytes:
    """The key id in a token's first eight characters (docs/format.md, "Bytes")."""
    return urlsafe_b64decode(token_begins)[2:6]


@lru_cache(maxsize=_REMEMBERED)
def _entity_headers(
    disposition: str, file_name: str, location_id: int | None, ending: str
) -> tuple[tuple[bytes, bytes], ...]:
    name = file_name or track_name(location_id, ending)
    media_type = content_type(ending or extension(file_name))
    return (
        (b"content-type", media_type.encode("ascii")),
        (b"content-disposition", content_disposition(disposition, name).encode("ascii")),
    )
