"""X-Accel-Redirect: who is told where a file is, what is told, and when nginx may answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar import Litestar

from contracts.errors import MalformedError
from origin.accel import KEY_HEADER, internal_uri, nginx_agrees
from origin.app import build_app
from origin.conditions import Validators, decide
from origin.settings import OriginSettings
from tests.origin.asgi import Answer, ask
from tests.origin.conftest import NOW, SECRET, Nas, content_of, link

KEY = "a-key-of-the-tests-long-enough"
CONTENT = content_of(1000)
TOLD = {KEY_HEADER.decode(): KEY}


def accel_settings(nas: Nas, **settings: str) -> OriginSettings:
    """Those of an origin that trusts 127.0.0.1 and has this key; `settings` replace keys or add some."""
    environment = {
        "MUSIC_CLOUD_ACCEL_PREFIX": "/_music/",
        "MUSIC_CLOUD_ACCEL_KEY": KEY,
        "MUSIC_CLOUD_TRUSTED_PROXIES": "127.0.0.1",
        "MUSIC_CLOUD_ORIGIN_ROOTS": f"nas-1={nas.music}",
        "MUSIC_CLOUD_CATALOG": str(nas.folder / "store"),
    }
    return OriginSettings.load(nas.db_path, environment=environment | settings)


def accel_app(nas: Nas, now: Callable[[], float] = lambda: NOW, **settings: str) -> Litestar:
    """An origin for the NAS with those settings."""
    app = build_app(accel_settings(nas, **settings), clock=now)
    app.state.private_origin_secret = SECRET
    return app


def told_of(nas: Nas, file: BinaryIO, *keys: str) -> bytes | None:
    """What the trusted proxy is told of an open file, when it sends these keys."""
    accel = accel_settings(nas).accel
    assert accel is not None
    scope: Any = {"client": ("127.0.0.1", 9), "headers": [(KEY_HEADER, key.encode()) for key in keys]}
    return accel.redirect(scope, file.fileno())


@pytest.fixture
def app(nas: Nas, monkeypatch: pytest.MonkeyPatch) -> Litestar:
    return accel_app(nas)


def asked(
    app: Litestar,
    path: str,
    headers: dict[str, str],
    method: str = "GET",
    client: tuple[str, int] | None = ("127.0.0.1", 9),
) -> Answer:
    return asyncio.run(ask(app, path, headers, method, client))


def test_proxy_that_is_trusted_and_has_the_key_is_told(nas: Nas, app: Litestar) -> None:
    path = link(nas.add("歌手/一 首?.flac", CONTENT))
    answer = asked(app, path, TOLD)
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")
    expected = "/_music/nas-1/%E6%AD%8C%E6%89%8B/%E4%B8%80%20%E9%A6%96%3F.flac"
    assert expected == answer.headers["x-accel-redirect"]


def test_what_is_told_has_every_header_of_the_file(nas: Nas, app: Litestar) -> None:
    path = link(nas.add("a.flac", CONTENT), file_name="周.flac")
    told, sent = asked(app, path, TOLD).headers, asked(app, path, {}).headers
    # nginx adds Accept-Ranges to a whole file by itself, and to a range it does not.
    assert {"x-accel-redirect"} == told.keys() - sent.keys()
    assert {"accept-ranges"} == sent.keys() - told.keys()
    assert asked(app, path, TOLD | {"Range": "bytes=0-9"}).headers["accept-ranges"] == "bytes"
    same = sent.keys() - {"accept-ranges", "content-length"}
    assert {name: sent[name] for name in same} == {name: told[name] for name in same}


@pytest.mark.parametrize(
    ("client", "key"),
    [
        (("127.0.0.1", 9), ""),
        (("127.0.0.1", 9), KEY[:-1]),
        (("127.0.0.1", 9), KEY + "x"),
        (("127.0.0.1", 9), "/_music/"),
        (("203.0.113.7", 9), KEY),
        (("", 0), KEY),
        (None, KEY),
    ],
)
def test_nobody_else_is_told(nas: Nas, app: Litestar, client: tuple[str, int] | None, key: str) -> None:
    """A proxy that is trusted but passes on what a stranger sends; a stranger with the key; a socket."""
    path = link(nas.add("a.flac", CONTENT))
    headers = {KEY_HEADER.decode(): key, "X-Forwarded-For": "127.0.0.1"}
    answer = asked(app, path, headers, client=client)
    assert (answer.status, answer.body) == (200, CONTENT)
    assert "x-accel-redirect" not in answer.headers


def test_two_keys_are_none(nas: Nas) -> None:
    """A proxy that appends its header to the client's has passed on the client's."""
    nas.add("a.flac", CONTENT)
    with (nas.music / "a.flac").open("rb") as file:
        assert told_of(nas, file, KEY) == b"/_music/nas-1/a.flac"
        assert told_of(nas, file, "x", KEY) is None
        assert told_of(nas, file) is None


def test_peer_of_a_unix_socket_is_told_when_it_is_trusted(nas: Nas, monkeypatch: pytest.MonkeyPatch) -> None:
    app = accel_app(nas, MUSIC_CLOUD_TRUSTED_PROXIES="unix")
    path = link(nas.add("a.flac", CONTENT))
    assert "x-accel-redirect" in asked(app, path, TOLD, client=None).headers
    assert "x-accel-redirect" not in asked(app, path, TOLD).headers


def test_every_check_comes_first(nas: Nas, app: Litestar) -> None:
    """Errors and answers without a body are the origin's, and name nothing."""
    (nas.music / "linked.flac").symlink_to("a.flac")
    good, etag = link(nas.add("a.flac", CONTENT)), '"x"'
    for path, headers, method, status in (
        (good[:-4], {}, "GET", 401),
        (link(nas.add("a.flac"), NOW), {}, "GET", 410),
        (link(nas.add("gone.flac")), {}, "GET", 404),
        (link(nas.add("linked.flac")), {}, "GET", 404),
        (good, {"If-Match": etag}, "GET", 412),
        (good, {"If-None-Match": "*"}, "GET", 304),
        (good, {"Range": "bytes=1000-"}, "GET", 416),
        (good, {}, "HEAD", 200),
        (good, {}, "OPTIONS", 204),
        (good, {}, "POST", 405),
    ):
        answer = asked(app, path, TOLD | headers, method)
        assert status == answer.status
        assert "x-accel-redirect" not in answer.headers and "nas-1" not in str(answer.headers)


def test_bytes_that_nginx_sends_are_not_counted(nas: Nas, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody tells the origin how many they were: a seek leaves most of what was asked for unsent."""
    monkeypatch.setattr("origin.limits.LEAST_BYTES", 1)
    app = accel_app(nas, MUSIC_CLOUD_MAX_COPIES_PER_LINK="1")
    path = link(nas.add("a.flac", CONTENT))
    assert [asked(app, path, TOLD).status for _ in range(3)] == [200, 200, 200]
    assert [asked(app, path, {}).status for _ in range(2)] == [200, 429]


def test_catalogue_folder_is_no_root(nas: Nas, app: Litestar) -> None:
    (nas.folder / "store").mkdir()
    (nas.folder / "store/manifest.json").write_bytes(b"{}")
    assert asked(app, "/catalog/manifest.json", TOLD).body == b"{}"


def test_root_of_the_catalogue_alone_is_sent_by_the_origin(nas: Nas, monkeypatch: pytest.MonkeyPatch) -> None:
    """nginx has a location for each root that is bound by name, and for no other."""
    app = accel_app(nas, MUSIC_CLOUD_ORIGIN_ROOTS=f"nas-2={nas.folder / 'other'}")
    assert asked(app, link(nas.add("a.flac", CONTENT)), TOLD).body == CONTENT


def test_root_may_be_a_link(nas: Nas, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = nas.add("a.flac", CONTENT)
    (nas.folder / "linked").symlink_to(nas.music)
    app = accel_app(nas, lambda: NOW, MUSIC_CLOUD_ORIGIN_ROOTS=f"nas-1={nas.folder / 'linked'}")
    assert asked(app, link(handle), TOLD).headers["x-accel-redirect"] == "/_music/nas-1/a.flac"


def test_file_without_a_name_is_sent_by_whoever_has_it_open(nas: Nas) -> None:
    """Deleted between our opening and our answer: nginx would find nothing, or what is called so."""
    nas.add("a.flac", CONTENT)
    nas.add("a.flac (deleted)", b"another file")
    with (nas.music / "a.flac").open("rb") as file, (nas.music / "a.flac (deleted)").open("rb") as other:
        (nas.music / "a.flac").unlink()
        assert told_of(nas, file, KEY) is None
        assert told_of(nas, other, KEY) == b"/_music/nas-1/a.flac%20%28deleted%29"


@given(st.lists(st.binary(min_size=1).filter(lambda name: not set(name) & {0, 47}), min_size=1, max_size=4))
def test_any_name_comes_out_as_it_went_in(names: list[bytes]) -> None:
    """nginx decodes percent-encoding and cuts at `?`; header fields hold visible ASCII."""
    uri = internal_uri(b"/music/" + b"/".join(names), ((b"/music", b"/_music/nas-1/"),))
    assert uri is not None and uri.isascii() and uri.decode().isprintable()
    assert not set(uri) & set(b'?#\\" ')
    assert unquote_to_bytes(uri) == b"/_music/nas-1/" + b"/".join(names)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/music/a", b"/_/m/a"),
        (b"/music/in/a", b"/_/in/a"),
        (b"/music2/a", None),
        (b"/music", None),
        (b"/etc/passwd", None),
        (b"pipe:[1]", None),
    ],
)
def test_innermost_root_counts_and_nothing_outside(path: bytes, expected: bytes | None) -> None:
    assert expected == internal_uri(path, ((b"/music/in", b"/_/in/"), (b"/music", b"/_/m/")))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, True),
        ({"range": "bytes=0-"}, True),
        ({"range": "bytes=5-9"}, True),
        ({"range": "bytes=-5"}, True),
        ({"range": "bytes=5-9", "if-range": '"tag"'}, True),
        ({"if-range": '"other"'}, True),
        ({"range": "bytes=5-9", "if-range": '"other"'}, False),
        ({"range": "bytes=5-4"}, False),
        ({"range": "bytes=0-1,5-9"}, False),
        ({"range": "bytes= 0-1"}, False),
        ({"range": "BYTES=0-1"}, False),
        ({"range": "items=0-1"}, False),
        ({"range": "bytes=0-9999999999999999999"}, False),
        ({"range": "bytes=5000-"}, False),
        ({"if-match": '"tag"'}, False),
        ({"if-none-match": '"other"'}, False),
        ({"if-modified-since": "yesterday"}, False),
        ({"if-unmodified-since": "yesterday"}, False),
    ],
)
def test_nginx_answers_only_what_it_reads_as_we_do(headers: dict[str, str], expected: bool) -> None:
    decision = decide("GET", headers, Validators(1000, '"tag"', NOW - 100), NOW)
    assert expected == nginx_agrees("GET", headers, decision)
    assert not nginx_agrees("HEAD", headers, decision)


@pytest.mark.parametrize(
    ("prefix", "key", "proxies"),
    [
        ("_music/", KEY, "127.0.0.1"),
        ("/_music", KEY, "127.0.0.1"),
        ("/", KEY, "127.0.0.1"),
        ("/a b/", KEY, "127.0.0.1"),
        ("/_music/", "", "127.0.0.1"),
        ("/_music/", "short", "127.0.0.1"),
        ("/_music/", KEY + '"', "127.0.0.1"),
        ("/_music/", "replace this by a key of your own", "127.0.0.1"),
        ("/_music/", KEY, ""),
    ],
)
def test_setting_that_would_never_work_is_an_error_at_start(
    tmp_path: Path, prefix: str, key: str, proxies: str
) -> None:
    environment = {"MUSIC_CLOUD_ACCEL_PREFIX": prefix, "MUSIC_CLOUD_ACCEL_KEY": key}
    with pytest.raises(MalformedError):
        OriginSettings.load(tmp_path / "db", trusted_proxies=proxies, environment=environment)


def test_without_a_prefix_there_is_none(tmp_path: Path) -> None:
    assert OriginSettings.load(tmp_path / "db", environment={"MUSIC_CLOUD_ACCEL_KEY": KEY}).accel is None
