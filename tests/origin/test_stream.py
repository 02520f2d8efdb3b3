"""The stream endpoint: what is answered, in which order, and with which headers."""

from __future__ import annotations

import asyncio
import json

import pytest
from litestar import Litestar

from contracts.keyring import KeyRing
from contracts.tokens import TokenKind, create_origin_token
from origin import STREAM_PATH, create_app
from tests.origin.asgi import ask, call
from tests.origin.conftest import NOW, SECRET, Nas, content_of, link, origin_app, stream

CONTENT = content_of(1000)


@pytest.fixture
def handle(nas: Nas) -> str:
    return nas.add("歌手/一 首.flac", CONTENT)


def test_handle_streams_its_file(app: Litestar, handle: str) -> None:
    answer = stream(app, handle)
    assert (answer.status, answer.body, answer.complete) == (200, CONTENT, True)
    headers = answer.headers
    assert headers["content-length"] == "1000"
    assert headers["accept-ranges"] == "bytes"
    assert headers["content-type"] == "audio/flac"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "private, max-age=600"
    assert headers["access-control-allow-origin"] == "*"
    assert headers["cross-origin-resource-policy"] == "cross-origin"
    for name in ("Content-Range", "Accept-Ranges", "ETag", "Content-Length"):
        assert name in headers["access-control-expose-headers"]


def test_nothing_of_the_path_is_shown(nas: Nas, app: Litestar, handle: str) -> None:
    """No header of any answer holds a part of the path on the NAS."""
    for headers in ({}, {"range": "bytes=0-1"}, {"range": "bytes=2000-"}):
        shown = str(stream(app, handle, headers).headers)
        for part in ("歌手", "%E6", "一 首", str(nas.folder), "music"):
            assert part not in shown


@pytest.mark.parametrize(
    ("header", "status", "first", "last"),
    [
        ("bytes=0-1", 206, 0, 1),
        ("bytes=500-", 206, 500, 999),
        ("bytes=-5", 206, 995, 999),
        ("bytes=-5000", 206, 0, 999),
        ("bytes=900-5000", 206, 900, 999),
        ("items=0-1", 200, 0, 999),
        ("bytes=5-1", 200, 0, 999),
    ],
)
def test_range(app: Litestar, handle: str, header: str, status: int, first: int, last: int) -> None:
    answer = stream(app, handle, {"Range": header})
    assert (status, CONTENT[first : last + 1]) == (answer.status, answer.body)
    assert str(last + 1 - first) == answer.headers["content-length"]
    expected = f"bytes {first}-{last}/1000" if status == 206 else None
    assert expected == answer.headers.get("content-range")


def test_unsatisfiable_range_tells_the_size(app: Litestar, handle: str) -> None:
    """RFC 9110, section 15.5.17."""
    answer = stream(app, handle, {"Range": "bytes=1000-"})
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */1000")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["access-control-allow-origin"] == "*"


def test_head_mirrors_get_without_ranges(app: Litestar, handle: str) -> None:
    """RFC 9110, section 9.3.2; ranges are for GET only (section 14.2)."""
    get, head = stream(app, handle), stream(app, handle, {"Range": "bytes=0-1"}, "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert get.headers == head.headers


def test_not_modified_and_precondition(app: Litestar, handle: str) -> None:
    etag = stream(app, handle).headers["etag"]
    same = stream(app, handle, {"If-None-Match": f'"x", {etag}'})
    assert (304, b"", etag) == (same.status, same.body, same.headers["etag"])
    assert same.headers["cache-control"] == "private, max-age=600"
    assert "content-length" not in same.headers
    assert stream(app, handle, {"If-Match": '"x"'}).status == 412
    assert stream(app, handle, {"Range": "bytes=0-1", "If-Range": etag}).status == 206
    assert stream(app, handle, {"Range": "bytes=0-1", "If-Range": '"x"'}).status == 200


def test_replaced_file_has_another_etag(nas: Nas, app: Litestar, handle: str) -> None:
    """Same name, same size: a player that resumes must get the whole new file."""
    etag = stream(app, handle).headers["etag"]
    (nas.music / "new").write_bytes(CONTENT[::-1])
    (nas.music / "new").rename(nas.music / "歌手/一 首.flac")
    answer = stream(app, handle, {"Range": "bytes=0-1", "If-Range": etag})
    assert (200, CONTENT[::-1]) == (answer.status, answer.body)


def test_empty_file(nas: Nas, app: Litestar) -> None:
    handle = nas.add("empty.mp3", b"")
    assert (stream(app, handle)[0], b"", stream(app, handle).headers["content-length"]) == (200, b"", "0")
    assert stream(app, handle, {"Range": "bytes=0-"}).status == 416


def test_status_order(nas: Nas, app: Litestar, handle: str) -> None:
    """503 without a secret, 401, 410, 404, and only then the file's own conditions (design, section 7)."""
    gone = nas.add("gone.mp3")
    expired = link(gone, NOW)
    assert call(app, expired, {"If-Match": '"x"'}).status == 410
    assert call(app, expired[:-1] + ("A" if expired[-1] != "A" else "E")).status == 401
    assert call(app, link(gone), {"If-Match": '"x"'}).status == 404
    assert stream(app, handle, {"If-Match": '"x"', "Range": "bytes=5000-"}).status == 412
    app.state.private_origin_secret = ""
    assert call(app, "/api/private-origin/stream/nonsense").status == 503


def test_bad_tokens_are_refused(app: Litestar, handle: str) -> None:
    good = link(handle)
    assert call(app, good).status == 200
    other = STREAM_PATH + create_origin_token("another secret altogether", handle, NOW + 1)
    for path in (
        STREAM_PATH,
        STREAM_PATH + "x",
        good + "/",
        good + "A",
        good + "=",
        good[:-1],
        other,
        link(handle, kind=TokenKind.LEASE),
        link(handle, kind=TokenKind.LISTEN),
        link(handle, not_before=NOW + 1),
        link(handle, client_network="203.0.113.0/24"),
    ):
        answer = call(app, path)
        assert answer.status == 401, path
        assert {"error", "detail"} == json.loads(answer.body).keys()
        assert answer.headers["cache-control"] == "no-store"


def test_one_status_has_one_body(nas: Nas, app: Litestar, handle: str) -> None:
    """A refusal must not tell which of its reasons it was."""
    nas.add("linked.mp3")
    (nas.music / "linked.mp3").symlink_to("/etc/passwd")
    refused = [
        nas.add("gone.mp3"),
        nas.add("../outside.mp3"),
        nas.add("folder.mp3/x"),
        "loc:999.00000000",
        "loc:x",
        handle[:-1] + ("0" if handle[-1] != "0" else "1"),
        "/etc/passwd",
        "linked.mp3",
        "a\0b",
    ]
    assert len({stream(app, locator)._replace(complete=True).body for locator in refused}) == 1
    assert {404} == {stream(app, locator).status for locator in refused}


def test_percent_encoded_token_is_the_same_url(app: Litestar, handle: str) -> None:
    """RFC 3986, section 6.2.2.2: an unreserved character and its encoding are one."""
    path = link(handle)
    assert call(app, path.replace("A", "%41")).status == 200


def test_network_of_the_client(app: Litestar, handle: str) -> None:
    path = link(handle, client_network="203.0.113.0/24")
    cases = {"203.0.113.7": 200, "::ffff:203.0.113.7": 200, "203.0.114.7": 401, "fe80::1%eth0": 401, "": 401}
    for address, status in cases.items():
        assert status == asyncio.run(ask(app, path, client=(address, 1))).status
    assert asyncio.run(ask(app, path, client=None)).status == 401


def test_network_of_a_client_behind_a_proxy(nas: Nas, handle: str) -> None:
    """A proxy's word counts only when the operator says so."""
    path = link(handle, client_network="203.0.113.0/24")
    behind = {"X-Forwarded-For": "203.0.113.7"}
    invented = {"X-Forwarded-For": "203.0.113.7, 198.51.100.1"}
    assert call(origin_app(nas), path, behind).status == 401
    trusting = origin_app(nas, trusted_proxies="127.0.0.1")
    assert call(trusting, path, behind).status == 200
    assert call(trusting, path, invented).status == 401
    assert call(trusting, path).status == 401
    assert asyncio.run(ask(trusting, path, behind, client=("198.51.100.1", 1))).status == 401
    assert asyncio.run(ask(trusting, path, behind, client=None)).status == 401
    unix = origin_app(nas, trusted_proxies="unix")
    assert asyncio.run(ask(unix, path, behind, client=None)).status == 200


def test_longest_life(nas: Nas, handle: str) -> None:
    """Only where it is set: callers with long-lived tokens of their own go on working."""
    bounded, unbounded = origin_app(nas, max_token_ttl_s=3600), origin_app(nas)
    assert call(bounded, link(handle, NOW + 3600)).status == 200
    assert call(bounded, link(handle, NOW + 3601)).status == 401
    assert call(unbounded, link(handle, NOW + 10**9)).status == 200


def test_secret_of_the_state_counts_at_any_time(nas: Nas, handle: str) -> None:
    (nas.folder / "origin.env").write_text(f"PRIVATE_ORIGIN_SECRET='{SECRET}'\n")
    app = create_app(nas.db_path, nas.folder / "origin.env", clock=lambda: NOW)
    assert call(app, link(handle)).status == 200
    app.state.private_origin_secret = "another secret altogether"
    assert call(app, link(handle)).status == 401
    app.state.private_origin_secret = KeyRing(["another secret altogether", SECRET])
    assert call(app, link(handle)).status == 200
    app.state.private_origin_secret = ""
    assert call(app, link(handle)).status == 503


def test_rotation_keeps_the_etag_of_a_link(nas: Nas, handle: str) -> None:
    """A player that goes on with an old link after a rotation must not start again."""
    app = origin_app(nas)
    before = stream(app, handle).headers["etag"]
    app.state.private_origin_secret = [SECRET, "the next secret, long enough"]
    assert before == stream(app, handle).headers["etag"]


def test_without_env_file_and_catalogue(nas: Nas, handle: str) -> None:
    """No error at start: no secret is 503, and with a secret a handle is 503 until the catalogue is there."""
    elsewhere = nas.folder / "catalogue.later"
    app = create_app(elsewhere, nas.folder / "missing.env", clock=lambda: NOW)
    assert call(app, link(handle)).status == 503
    app.state.private_origin_secret = SECRET
    answer = call(app, link(handle))
    assert (answer.status, "retry-after" in answer.headers) == (503, True)
    nas.db_path.rename(elsewhere)
    assert call(app, link(handle)).status == 200


def test_file_name_of_the_claims(app: Litestar, handle: str) -> None:
    """RFC 6266 with the UTF-8 name of RFC 8187 beside the ASCII one."""
    answer = call(app, link(handle, file_name='周 "x".flac', disposition="attachment"))
    expected = "attachment; filename=\"_ _x_.flac\"; filename*=UTF-8''%E5%91%A8%20%22x%22.flac"
    assert expected == answer.headers["content-disposition"]
    assert stream(app, handle).headers["content-disposition"] == 'inline; filename="track-1.flac"'


def test_preflight_and_methods(app: Litestar, handle: str) -> None:
    preflight = call(
        app, link(handle), {"Origin": "https://a", "Access-Control-Request-Method": "GET"}, "OPTIONS"
    )
    assert (preflight.status, preflight.headers["access-control-allow-origin"]) == (204, "*")
    assert "Range" in preflight.headers["access-control-allow-headers"]
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = call(app, link(handle), method=method)
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


def test_health_and_unknown_paths(app: Litestar) -> None:
    assert (call(app, "/healthz").status, call(app, "/healthz").body) == (200, b'{"status":"ok"}')
    assert call(app, "/healthz", method="HEAD").status == 200
    for path in (
        "/",
        "/schema",
        "/schema/openapi.json",
        "/docs",
        "/api/private-origin/streams/x",
        "/catalog/manifest.json",
    ):
        answer = call(app, path)
        assert (answer.status, answer.headers["cache-control"]) == (404, "no-store"), path
        assert {"error", "detail"} == json.loads(answer.body).keys()


def test_direct_locators(nas: Nas, app: Litestar) -> None:
    """A path beneath a root, or relative to the only one; nothing else."""
    (nas.music / "a.mp3").write_bytes(CONTENT)
    assert stream(app, "a.mp3").status == 200
    assert stream(app, str(nas.music / "a.mp3")).status == 200
    assert stream(app, str(nas.music) + "x/a.mp3").status == 404
    assert stream(app, str(nas.db_path)).status == 404
    assert stream(app, f"{nas.music}/../catalogsync.db").status == 404
    nas.execute("INSERT INTO storage_backends VALUES (2, 'nas-2', 'nas', '/nowhere', '{}')")
    assert stream(app, "a.mp3").status == 404
    assert stream(origin_app(nas, roots={"nas-1": nas.music}), "a.mp3").status == 200


def test_root_bound_by_name(nas: Nas) -> None:
    """The catalogue says where the writer sees the files; the origin may see them elsewhere."""
    handle = nas.add("a.mp3", CONTENT)
    absolute = nas.add(str(nas.music / "a.mp3"))
    nas.music.rename(nas.folder / "moved")
    assert stream(origin_app(nas), handle).status == 404
    app = origin_app(nas, roots={"nas-1": nas.folder / "moved"})
    assert stream(app, handle).status == 200
    assert stream(app, absolute).status == 200
