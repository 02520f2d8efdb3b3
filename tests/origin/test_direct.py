"""The way around Litestar: the same answers, and the same silence about what went wrong."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from litestar import Litestar

from origin import STREAM_PATH
from origin.files import Files
from origin.limits import Usage
from tests.origin.asgi import ask, call
from tests.origin.conftest import Nas, content_of, link, origin_app


@pytest.fixture
def path(nas: Nas) -> str:
    return link(nas.add("a.mp3", content_of(1000)))


def asked_as(app: Litestar, host: str) -> Any:
    """The application, as it is asked by a client that calls it so."""

    async def asked(scope: Any, receive: Any, send: Any) -> None:
        scope["headers"] = [(b"host", host.encode())]
        await app(scope, receive, send)

    return asked


def without_id(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name != "x-request-id"}


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT"])
@pytest.mark.parametrize("ending", ["", "x", "/", "?a=b"])
def test_answers_are_those_of_the_way_through_litestar(
    nas: Nas, app: Litestar, path: str, method: str, ending: str
) -> None:
    ordinary = origin_app(nas)
    ordinary._direct = ()  # type: ignore[attr-defined]
    for asked in (path + ending, STREAM_PATH + ending, STREAM_PATH[:-1] + ending):
        ours, theirs = call(app, asked, method=method), call(ordinary, asked, method=method)
        assert (ours.status, ours.body) == (theirs.status, theirs.body)
        assert without_id(ours.headers) == without_id(theirs.headers)


@pytest.mark.parametrize("host", ["a b", "a/b", "a\\b", "<x>"])
def test_malformed_host_is_refused(app: Litestar, path: str, host: str) -> None:
    """RFC 9112, section 3.2."""
    assert call(asked_as(app, host), path).status == 400


@pytest.mark.parametrize("host", ["nas.local:8000", "[::1]:80", "a%20b", "", "a_b"])
def test_any_other_host_is_served(app: Litestar, path: str, host: str) -> None:
    assert call(asked_as(app, host), path).status == 200


def test_everything_else_is_litestars(app: Litestar, path: str) -> None:
    """It joins slashes, for one; and its state counts here at once."""
    assert [call(app, before + path).status for before in ("", "/", "/x")] == [200, 200, 404]
    app.state.private_origin_secret = "another secret altogether"
    assert [call(app, before + path).status for before in ("", "/", "/x")] == [401, 401, 404]


def test_websocket_is_closed(app: Litestar, path: str) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {
        "type": "websocket", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "ws", "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": [], "subprotocols": [],
        "client": ("127.0.0.1", 9), "server": ("test", 80), "state": {},
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    assert {"websocket.close"} == {message["type"] for message in sent}


def test_unexpected_error_is_500_and_tells_nothing(
    app: Litestar, path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> object:
        raise RuntimeError("/volume1/music/secret.mp3")

    monkeypatch.setattr(Files, "open", fail)
    with caplog.at_level(logging.DEBUG):
        answer = call(app, path)
    assert (answer.status, answer.complete) == (500, True)
    assert answer.headers["cache-control"] == "no-store"
    assert b"internal_error" in answer.body
    assert "unexpected RuntimeError in fail:" in caplog.text
    assert "secret" not in caplog.text + str(answer)


def test_unexpected_error_within_a_body_adds_nothing_to_it(
    app: Litestar, path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The response stays without an end, and the server closes the connection."""
    plain = Usage.counting

    def failing(self: Usage, send: Any) -> Any:
        counted = plain(self, send)

        async def fail_late(message: Any) -> None:
            if message["type"] != "http.response.start":
                raise RuntimeError("/volume1/music/secret.mp3")
            await counted(message)

        return fail_late

    monkeypatch.setattr(Usage, "counting", failing)
    answer = asyncio.run(ask(app, path))
    assert (answer.status, answer.body, answer.complete) == (200, b"", False)
    assert "unexpected RuntimeError" in caplog.text
    assert "secret" not in caplog.text
