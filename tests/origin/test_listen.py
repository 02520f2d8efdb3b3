"""The listening page: what stands in it, what it may do, and what a dead link shows."""

from __future__ import annotations

import logging
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar import Litestar

from contracts.best_source import LEASE_LIFE_S, LISTEN_PATH, PAUSE_S, UNKNOWN_DURATION_S
from contracts.tokens import TokenKind, create_origin_token, verify_origin_token
from origin.listen import UNTITLED, Page
from origin.lookup import Catalogue
from tests.origin.asgi import Answer, call
from tests.origin.conftest import NOW, SECRET, Nas, origin_app

PAGE = Page.load()


class Shown(HTMLParser):
    """What a browser would make of a page: its elements, and the text of those that show some."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self._in = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("title", "h1", "p", "span"):
            self._in = dict(attrs).get("class") or tag

    def handle_endtag(self, tag: str) -> None:
        if tag in ("title", "h1", "p", "span"):
            self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in:
            self.text[self._in] = self.text.get(self._in, "") + data

    def audio(self) -> dict[str, str | None]:
        (attributes,) = [attributes for tag, attributes in self.elements if tag == "audio"]
        return attributes


def listen_link(locator: str, expires_at: int = NOW + 600, **claims: Any) -> str:
    claims = {"kind": TokenKind.LISTEN} | claims
    return LISTEN_PATH + create_origin_token(SECRET, locator, expires_at, **claims)


def shown(answer: Answer) -> Shown:
    return Shown(answer.body.decode())


def test_page_shows_the_song_and_embeds_a_stream_and_a_lease(nas: Nas, app: Litestar) -> None:
    handle = nas.add("歌手/秘密.flac", b"x" * 10)
    nas.execute("UPDATE songs SET name = '夜曲', singers = '周 & 林'")
    answer = call(app, listen_link(handle, duration_s=200, file_name="n.flac"))
    page = shown(answer)
    assert answer.status == 200
    shown_text = [page.text[name] for name in ("title", "h1", "artist", "length")]
    assert shown_text == ["夜曲", "夜曲", "周 & 林", "3:20"]
    assert "秘密" not in answer.body.decode()
    audio = page.audio()
    source = str(audio["src"])
    assert source.startswith("../api/private-origin/stream/")
    assert call(app, source.removeprefix("..")).body == b"x" * 10
    stream = verify_origin_token(SECRET, source.rpartition("/")[2], NOW)
    lease = verify_origin_token(SECRET, str(audio["data-lease"]), NOW, kind=TokenKind.LEASE)
    assert (stream.expires_at, lease.expires_at) == (NOW + 200 + PAUSE_S, NOW + LEASE_LIFE_S)
    for claims in (stream, lease):
        assert (claims.locator, claims.duration_s, claims.file_name) == (handle, 200, "n.flac")


def test_lives_are_no_longer_than_allowed_and_the_network_goes_on(nas: Nas) -> None:
    app = origin_app(nas, max_token_ttl_s=900)
    path = listen_link(nas.add("a.mp3", b"x"), client_network="127.0.0.0/8")
    audio = shown(call(app, path)).audio()
    stream = verify_origin_token(SECRET, str(audio["src"]).rpartition("/")[2], NOW)
    lease = verify_origin_token(SECRET, str(audio["data-lease"]), NOW, kind=TokenKind.LEASE)
    assert (stream.expires_at, lease.expires_at) == (NOW + 900, NOW + 900)
    assert stream.client_network == lease.client_network == "127.0.0.0/8"


def test_length_of_the_catalogue_counts_where_the_link_has_none(nas: Nas, app: Litestar) -> None:
    handle = nas.add("a.mp3", b"x")
    page = shown(call(app, listen_link(handle)))
    assert "length" not in page.text
    claims = verify_origin_token(SECRET, str(page.audio()["src"]).rpartition("/")[2], NOW)
    assert claims.expires_at == NOW + UNKNOWN_DURATION_S + PAUSE_S
    nas.execute("""UPDATE songs SET metadata_json = '{"duration": 3725.5}'""")
    assert shown(call(app, listen_link(handle))).text["length"] == "1:02:06"


def test_title_falls_back_to_the_name_in_the_link(nas: Nas, app: Litestar) -> None:
    """Never to a path: neither one of the catalogue nor one that was signed."""
    handle = nas.add("secret/a.mp3", b"x")
    nas.execute("UPDATE songs SET name = ' ', singers = NULL")
    assert shown(call(app, listen_link(handle, file_name="夜.mp3"))).text["h1"] == "夜.mp3"
    assert shown(call(app, listen_link(handle))).text["h1"] == UNTITLED
    page = shown(call(app, listen_link("secret/a.mp3")))
    assert (page.text["h1"], "artist" in page.text) == (UNTITLED, False)


def test_busy_catalogue_costs_only_the_title(nas: Nas, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = nas.add("a.mp3", b"x")
    nas.db_path.unlink()
    answer = call(origin_app(nas), listen_link(handle, file_name="n.mp3"))
    assert (answer.status, shown(answer).text["h1"]) == (200, "n.mp3")


@pytest.mark.parametrize(
    "text",
    [
        "</title><script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' onload='x",
        "$source ${title} $",
        "&lt;&amp;",
        "a\0b\x1b[31m\u2028c",
    ],
)
def test_what_the_catalogue_says_is_only_ever_text(nas: Nas, app: Litestar, text: str) -> None:
    handle = nas.add("a.mp3", b"x")
    plain = [each[0] for each in shown(call(app, listen_link(handle))).elements]
    nas.execute("UPDATE songs SET name = ?, singers = ?", text, text)
    page = shown(call(app, listen_link(handle)))
    assert plain == [each[0] for each in page.elements]
    expected = re.sub(r"[\x00-\x1f]", " ", text)
    assert page.text["title"] == page.text["h1"] == page.text["artist"] == expected


def test_text_that_runs_to_the_left_stays_in_its_place(nas: Nas, app: Litestar) -> None:
    """UAX 9: overrides are taken out, and what is written from right to left is isolated."""
    handle = nas.add("a.mp3", b"x")
    nas.execute("UPDATE songs SET name = ?", "\u202eevil\u2066 שלום")
    body = call(app, listen_link(handle)).body.decode()
    assert "<bdi>evil  שלום</bdi>" in body
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", body)


@given(st.text(), st.text())
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=50, deadline=None)
def test_any_text_leaves_the_page_as_it_is(title: str, artist: str) -> None:
    plain = Shown(PAGE.player("t", "a", 1, "s", "l").decode())
    page = PAGE.player(
        title.encode("utf-8", "replace").decode(), artist.encode("utf-8", "replace").decode(), 1, "s", "l"
    )
    assert plain.elements == Shown(page.decode()).elements


def test_policy_allows_the_track_and_the_pages_own_script_only(nas: Nas, app: Litestar) -> None:
    answer = call(app, listen_link(nas.add("a.mp3", b"x")))
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    body = answer.body.decode()
    for element in ("style", "script"):
        (content,) = re.findall(f"<{element}>(.*?)</{element}>", body, re.DOTALL)
        digest = b64encode(sha256(content.encode()).digest()).decode()
        assert policy.pop(f"{element}-src") == f"'sha256-{digest}'"
    assert policy == {
        "default-src": "'none'",
        "media-src": "'self'",
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "access-control-allow-origin" not in answer.headers
    assert not re.search(r"""(?:src|href)="(?!\.\./api/|data:)""", body)
    assert not re.search(r"""\s(?:style|on[a-z]+)=""", body)


def test_dead_links_are_pages_with_a_message_and_nothing_to_play(nas: Nas, app: Litestar) -> None:
    handle = nas.add("a.mp3", b"x")
    good = listen_link(handle)
    dead = [
        (good[:-1], 401),
        (LISTEN_PATH, 401),
        (listen_link(handle, kind=TokenKind.STREAM), 401),
        (listen_link(handle, kind=TokenKind.LEASE), 401),
        (listen_link(handle, client_network="203.0.113.0/24"), 401),
        (listen_link(handle, NOW), 410),
        (listen_link("loc:9.00000000"), 404),
    ]
    for path, status in dead:
        answer = call(app, path)
        assert (answer.status, answer.headers["cache-control"]) == (status, "no-store"), path
        assert "content-security-policy" in answer.headers
        page = shown(answer)
        assert page.text["notice"]
        assert "src" not in page.audio()
        assert b"data-lease" not in answer.body.partition(b"<script>")[0]
    app.state.private_origin_secret = ""
    answer = call(app, good)
    assert (answer.status, "retry-after" in answer.headers) == (503, True)


def test_nothing_is_looked_up_before_the_mac_was_good(
    nas: Nas, app: Litestar, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = listen_link(nas.add("a.mp3", b"x"))
    monkeypatch.setattr(Catalogue, "find_song", lambda *_: pytest.fail("looked up"))
    assert call(app, good[:-1]).status == 401
    assert call(app, listen_link("loc:1.00000000", NOW)).status == 410


def test_head_and_other_methods(nas: Nas, app: Litestar) -> None:
    path = listen_link(nas.add("a.mp3", b"x"))
    get, head = call(app, path), call(app, path, method="HEAD")
    assert (head.status, head.body, head.headers) == (200, b"", get.headers)
    assert call(app, path, method="POST").status == 405


def test_no_log_holds_a_token(nas: Nas, app: Litestar, caplog: pytest.LogCaptureFixture) -> None:
    handle = nas.add("a.mp3", b"x")
    with caplog.at_level(logging.DEBUG):
        for path in (listen_link(handle), listen_link(handle)[:-1], listen_link("loc:9.00000000")):
            call(app, path)
    assert "refused" in caplog.text
    assert listen_link(handle)[len(LISTEN_PATH) :][:20] not in caplog.text
