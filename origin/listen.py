"""The listening page: a listen token in the address, a player for one track out.

Invariant: what the page may do is in its Content-Security-Policy, which names its one style and its one
script by their digests; it loads nothing but the track, from here. Whatever comes from a catalogue or a token
is escaped, and nothing of it stands in a script. The page and its messages are in `listen.html`; like its
tokens they are never stored.
"""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from html import escape
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Final

from contracts.best_source import LISTEN_PATH, STREAM_PATH, parse_duration
from contracts.keyring import KeyRing
from contracts.tokens import OriginClaims, TokenKind
from origin.gate import Gate, Refused
from origin.lease import renewed
from origin.logs import request_id
from origin.lookup import Song
from origin.refusals import Reason
from origin.reply import Headers, token_asked_for
from origin.roots import LocatorRefused
from origin.songs import Songs

if TYPE_CHECKING:
    from litestar.types import HTTPScope, Receive, Send

UNTITLED = "Untitled track"
# What a listener without a page is told; why it is so, only the log says.
_DEAD: Final = {
    401: ("This link is not valid", "Perhaps a part of it was lost on the way. Ask for it again."),
    404: ("This track is gone", "It is not where it was when the link was made."),
    410: ("This link has ended", "Links to music last only for a while. Ask for a new one."),
    503: ("No music right now", "The music cannot be reached at the moment. Try again a little later."),
}
# Category Cc, and what changes the direction of the text that follows (Unicode, UAX 9, section 2).
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]+")


class Page:
    """The template, and the headers of every page that is made from it."""

    def __init__(self, html: str) -> None:
        self._template = Template(html)
        policy = "; ".join(
            (
                "default-src 'none'",
                "media-src 'self'",
                "connect-src 'self'",
                "img-src data:",  # The icon, which is in the page.
                f"style-src {_digest_of('style', html)}",
                f"script-src {_digest_of('script', html)}",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
            )
        )
        self.headers: Final[Headers] = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"content-security-policy", policy.encode("ascii")),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"referrer-policy", b"no-referrer"),
            (b"x-content-type-options", b"nosniff"),
            (b"x-robots-tag", b"noindex"),
        ]

    @classmethod
    def load(cls) -> Page:
        """The page that is shipped."""
        return cls(resources.files("origin").joinpath("listen.html").read_text("utf-8"))

    def player(self, title: str, artist: str, duration_s: int, stream: str, lease: str) -> bytes:
        """The page that plays a stream token, and renews it by a lease. Relative, so that a prefix stays."""
        return self._fill(
            title=title,
            artist=artist,
            length=_clock_text(duration_s) if duration_s else "",
            source=f'src="..{STREAM_PATH}{stream}" data-lease="{lease}"',
        )

    def message(self, title: str, text: str) -> bytes:
        """The page that says why there is nothing to play."""
        return self._fill(title=title, notice=text)

    def _fill(
        self, *, title: str, artist: str = "", length: str = "", source: str = "", notice: str = ""
    ) -> bytes:
        values = {"title": title, "artist": artist, "length": length, "notice": notice}
        escaped = {name: escape(_UNPRINTABLE.sub(" ", value).strip()) for name, value in values.items()}
        return self._template.substitute(escaped, source=source).encode("utf-8")


class ListenEndpoint:
    """An ASGI application for the paths below `LISTEN_PATH`."""

    def __init__(self, gate: Gate, songs: Songs, page: Page) -> None:
        self._gate = gate
        self._songs = songs
        self._page = page

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        token = await token_asked_for(scope, send, LISTEN_PATH)
        if token is None:
            return
        try:
            claims, ring, now = await self._gate.enter(scope, token, TokenKind.LISTEN)
            song = await self._songs.find(claims.locator)
        except Refused as refusal:
            self._gate.note(refusal)
            await self._answer(scope, send, refusal.status, self._page.message(*_DEAD[refusal.status]))
        except LocatorRefused as error:
            self._gate.refusals.note(Reason.NOT_FOUND, 404, str(error))
            await self._answer(scope, send, 404, self._page.message(*_DEAD[404]))
        else:
            await self._answer(scope, send, 200, self._player(ring, claims, song, now))

    def _player(self, ring: KeyRing, claims: OriginClaims, song: Song | None, now: float) -> bytes:
        known = song or Song("", "", "")
        duration_s = claims.duration_s or parse_duration(known.metadata_json)
        granted = OriginClaims(
            locator=claims.locator,
            expires_at=claims.expires_at,
            duration_s=duration_s,
            file_name=claims.file_name,
            disposition=claims.disposition,
            client_network=claims.client_network,
        )
        longest_s = self._gate.max_token_ttl_s
        stream = renewed(ring, granted, TokenKind.STREAM, now, longest_s)
        lease = renewed(ring, granted, TokenKind.LEASE, now, longest_s)
        title = known.name.strip() or claims.file_name or UNTITLED
        return self._page.player(title, known.singers, duration_s, stream.token, lease.token)

    async def _answer(self, scope: HTTPScope, send: Send, status: int, body: bytes) -> None:
        headers = [*self._page.headers, (b"content-length", b"%d" % len(body))]
        if status != 200:
            headers.append((b"x-request-id", request_id().encode("ascii")))
        if status == 503:
            headers.append((b"retry-after", b"10"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        shown = b"" if scope["method"] == "HEAD" else body
        await send({"type": "http.response.body", "body": shown, "more_body": False})


def _digest_of(element: str, html: str) -> str:
    """The source expression for the page's one inline style or script (CSP 3, section 2.3.1).

    Raises:
        ValueError: the page has none, or several.
    """
    (content,) = re.findall(f"<{element}>(.*?)</{element}>", html, re.DOTALL)
    return f"'sha256-{b64encode(sha256(content.encode('utf-8')).digest()).decode('ascii')}'"


def _clock_text(seconds: int) -> str:
    """A length as players show it: 3:05, or 1:02:03."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
