"""Renewal: what a lease is exchanged for, and everything that is not."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar import Litestar

from contracts.best_source import (
    LEASE_LIFE_S,
    LISTEN_PATH,
    PAUSE_S,
    RENEW_PATH,
    UNKNOWN_DURATION_S,
    LeasedSource,
    leased_source,
)
from contracts.errors import UnknownKey
from contracts.tokens import TokenKind, create_origin_token, verify_origin_token
from origin import STREAM_PATH, create_app
from origin.files import Files
from origin.lease import BODY_LIMIT_BYTES
from tests.origin.asgi import Answer, call
from tests.origin.conftest import NOW, SECRET, Nas, link, origin_app

JSON = {"Content-Type": "application/json"}


def lease(locator: str = "loc:1.00000000", expires_at: int = NOW + LEASE_LIFE_S, **claims: Any) -> str:
    return create_origin_token(SECRET, locator, expires_at, **({"kind": TokenKind.LEASE} | claims))


def posting(app: Litestar, *pieces: bytes) -> Any:
    """The application for a client that sends this body, piece by piece."""

    async def with_body(scope: Any, _: Any, send: Any) -> None:
        left = list(pieces)

        async def receive() -> Any:
            if not left:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

        await app(scope, receive, send)

    return with_body


def post(app: Litestar, body: bytes | str, headers: dict[str, str] | None = None) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps({"lease": body}).encode()
    return call(posting(app, raw), RENEW_PATH, JSON if headers is None else headers, "POST")


def test_lease_becomes_a_stream_link_to_the_same_file(nas: Nas, app: Litestar) -> None:
    handle = nas.add("a.flac", b"x" * 10)
    token = lease(handle, duration_s=200, file_name="夜.flac", disposition="attachment")
    answer = post(app, token)
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.headers["access-control-allow-origin"] == "*"
    fresh = json.loads(answer.body)
    assert fresh["path"] == STREAM_PATH + fresh["token"]
    assert fresh["expires_at"] == NOW + 200 + PAUSE_S
    claims = verify_origin_token(SECRET, fresh["token"], NOW)
    assert (handle, fresh["expires_at"], 0, 200, "夜.flac", "attachment", "") == (
        claims.locator, claims.expires_at, claims.not_before, claims.duration_s, claims.file_name,
        claims.disposition, claims.client_network,
    )  # fmt: skip
    assert call(app, fresh["path"]).body == b"x" * 10


def test_life_of_what_comes_out(nas: Nas) -> None:
    """The default where the length is not known; never more than the longest that is accepted."""

    def life_s(longest_s: int | None, **claims: Any) -> int:
        app = origin_app(nas, max_token_ttl_s=longest_s)
        expires_at: int = json.loads(post(app, lease(expires_at=NOW + 60, **claims)).body)["expires_at"]
        return expires_at - NOW

    assert life_s(None) == UNKNOWN_DURATION_S + PAUSE_S
    assert life_s(None, duration_s=100) == 100 + PAUSE_S
    assert life_s(300, duration_s=100) == 300
    assert life_s(None, duration_s=2**31 - 1) <= 86_400 + PAUSE_S


def test_website_gets_a_link_and_the_lease_that_renews_it(nas: Nas, app: Litestar) -> None:
    """From the rows of the public database; a public URL needs no lease, and no link has none either."""
    handle = nas.add("a.mp3", b"x")
    row = (1, 1, "high", "mp3", 1, "nas", "nas-1", handle, None, "active", 1)

    def source(*rows: Any) -> LeasedSource | None:
        metadata = '{"duration": 60}'
        return leased_source(rows, metadata, secret=SECRET, origin_url="https://nas/", now=NOW + 0.5)

    found = source(row)
    assert found is not None
    assert call(app, found.url.removeprefix("https://nas")).body == b"x"
    assert json.loads(post(app, found.lease).body)["expires_at"] == NOW + 60 + PAUSE_S
    claims = verify_origin_token(SECRET, found.lease, NOW, kind=TokenKind.LEASE)
    assert claims.expires_at == NOW + LEASE_LIFE_S
    assert source((*row[:8], "https://cdn/a.mp3", *row[9:])) == ("https://cdn/a.mp3", "")
    assert source() is None


def test_lease_outlives_its_streams_and_is_never_extended(nas: Nas) -> None:
    now = [float(NOW)]
    app = origin_app(nas, lambda: now[0])
    token = lease()
    assert "lease" not in json.loads(post(app, token).body)
    now[0] += LEASE_LIFE_S - 1
    assert post(app, token).status == 200
    now[0] += 1
    assert post(app, token).status == 410


def test_only_a_lease_renews(app: Litestar) -> None:
    for kind in (TokenKind.STREAM, TokenKind.LISTEN):
        assert post(app, lease(kind=kind)).status == 401


def test_refusals_are_those_of_streaming(nas: Nas) -> None:
    app = origin_app(nas, max_token_ttl_s=LEASE_LIFE_S)
    good = lease()
    assert post(app, good[:-1]).status == 401
    assert post(app, lease(expires_at=NOW + LEASE_LIFE_S + 1)).status == 401
    assert post(app, lease(not_before=NOW + 1)).status == 401
    assert post(app, lease(expires_at=NOW)).status == 410
    assert post(app, lease(client_network="203.0.113.0/24")).status == 401
    app.state.private_origin_secret = ""
    assert post(app, good).status == 503
    assert post(app, b"nonsense", {}).status == 503


def test_client_network_goes_on_into_the_stream(app: Litestar) -> None:
    fresh = json.loads(post(app, lease(client_network="127.0.0.0/8")).body)
    assert verify_origin_token(SECRET, fresh["token"], NOW).client_network == "127.0.0.0/8"


def test_nothing_is_looked_up(nas: Nas, app: Litestar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Files, "open", lambda *_: pytest.fail("looked up"))
    nas.db_path.unlink()
    assert post(app, lease()).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/jsonp"},
    ],
)
def test_body_that_is_not_said_to_be_json_is_415(app: Litestar, headers: dict[str, str]) -> None:
    assert post(app, lease(), headers).status == 415


def test_content_type_with_parameters(app: Litestar) -> None:
    assert post(app, lease(), {"Content-Type": "Application/JSON; charset=utf-8"}).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"{}", b'{"lease": 1}', b'{"lease": null}', b'{"lease": "\xff"}',
        b'{"lease": "x", "more": 1}', b'{"lease":' * 300, b"[" * 4096, b'{"lease": "\\ud800"}',
    ],
)  # fmt: skip
def test_body_that_holds_no_lease_is_400(app: Litestar, body: bytes) -> None:
    answer = post(app, body)
    assert (answer.status, answer.headers["cache-control"]) == (400, "no-store")


def test_body_is_not_read_beyond_its_limit(app: Litestar) -> None:
    assert post(app, b" " * (BODY_LIMIT_BYTES + 1)).status == 413
    endless = posting(app, *[b" " * 100] * 1000)
    assert call(endless, RENEW_PATH, JSON, "POST").status == 413


def test_longest_lease_fits_into_the_limit(app: Litestar) -> None:
    token = lease("x" * 1024, file_name="\U0001f3b5" * 255, duration_s=2**31 - 1)
    assert post(app, token).status == 200


def test_body_in_pieces_and_a_client_that_leaves(app: Litestar) -> None:
    body = json.dumps({"lease": lease()}).encode()
    assert call(posting(app, body[:10], b"", body[10:]), RENEW_PATH, JSON, "POST").status == 200
    assert call(posting(app), RENEW_PATH, JSON, "POST").status == 400


def test_body_that_does_not_come_is_not_waited_for(app: Litestar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("origin.lease.BODY_LIMIT_S", 0.0)

    async def silent(scope: Any, _: Any, send: Any) -> None:
        await app(scope, asyncio.Event().wait, send)  # type: ignore[arg-type]

    assert call(silent, RENEW_PATH, JSON, "POST").status == 400  # type: ignore[arg-type]


def test_a_player_of_another_site_may_renew(app: Litestar) -> None:
    """Fetch, section 3.3: JSON needs a preflight; refusals can be read as well."""
    asks = {"Origin": "https://a", "Access-Control-Request-Method": "POST"}
    preflight = call(app, RENEW_PATH, asks | {"Access-Control-Request-Headers": "content-type"}, "OPTIONS")
    assert (preflight.status, preflight.body) == (204, b"")
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert preflight.headers["access-control-allow-methods"] == "POST"
    assert preflight.headers["access-control-allow-headers"] == "Content-Type"
    assert post(app, "x").headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_other_methods_are_405(app: Litestar, method: str) -> None:
    answer = call(app, RENEW_PATH, method=method)
    assert (answer.status, answer.headers["allow"]) == (405, "OPTIONS, POST")


def test_other_paths_are_404(app: Litestar) -> None:
    for path in (RENEW_PATH + "/", RENEW_PATH + "/x", RENEW_PATH + "al"):
        assert call(posting(app, b"{}"), path, JSON, "POST").status == 404


def test_no_log_holds_a_lease(app: Litestar, caplog: pytest.LogCaptureFixture) -> None:
    token = lease(expires_at=NOW)
    with caplog.at_level(logging.DEBUG):
        post(app, token)
        post(app, token[:-2])
        post(app, lease())
    assert token[:20] not in caplog.text


def test_rotation_by_the_ring_file_breaks_no_link(
    nas: Nas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new secret is appended while all three kinds are in use; the old one goes when they are over."""
    monkeypatch.setattr("origin.key_source.CHECK_INTERVAL_S", 0.0)
    ring = tmp_path / "ring"
    (tmp_path / "origin.env").write_text("MUSIC_CLOUD_PRIVATE_ORIGIN_KEY_RING=ring\n")
    ring.write_text(f"{SECRET}\n")
    handle = nas.add("a.mp3", b"x" * 10)
    app = create_app(nas.db_path, tmp_path / "origin.env", clock=lambda: NOW)
    held, page = lease(handle), LISTEN_PATH + lease(handle, kind=TokenKind.LISTEN)

    def statuses() -> list[int]:
        return [call(app, link(handle)).status, post(app, held).status, call(app, page).status]

    assert statuses() == [200, 200, 200]
    etag = call(app, link(handle)).headers["etag"]
    ring.write_text(f"{SECRET}\nthe next secret, long enough\n")
    assert statuses() == [200, 200, 200]
    assert etag == call(app, link(handle)).headers["etag"]
    fresh = json.loads(post(app, held).body)
    with pytest.raises(UnknownKey):  # The newest key signs.
        verify_origin_token(SECRET, fresh["token"], NOW)
    ring.write_text("the next secret, long enough\n")
    assert statuses() == [401, 401, 401]
    assert call(app, fresh["path"]).status == 200


@given(st.binary(max_size=300) | st.text().map(lambda text: json.dumps({"lease": text}).encode()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
def test_any_body_is_refused_and_never_an_error(app: Litestar, body: bytes) -> None:
    assert post(app, body).status in (400, 401)
