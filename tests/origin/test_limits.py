"""Limits per link: what is counted, what is forgotten, and what is answered when it is too much."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from origin import limits, serving
from origin.files import Files
from origin.limits import LinkLimited, LinkLimits
from tests.origin.asgi import ask, call
from tests.origin.conftest import NOW, Nas, content_of, link, origin_app

TOKEN, OTHER = "A" * 60 + "B" * 32, "A" * 60 + "C" * 32


def test_one_connection_more_than_allowed_is_refused_until_one_ends() -> None:
    accounts = LinkLimits(max_connections=2)
    with accounts.connection(TOKEN, NOW + 1, NOW):
        with accounts.connection(TOKEN, NOW + 1, NOW):
            with pytest.raises(LinkLimited) as refused, accounts.connection(TOKEN, NOW + 1, NOW):
                pass
            assert refused.value.retry_after_s == 2
            with accounts.connection(OTHER, NOW + 1, NOW):
                pass
        with accounts.connection(TOKEN, NOW + 1, NOW):
            pass


def test_connection_that_fails_is_counted_down() -> None:
    accounts = LinkLimits(max_connections=1)
    for _ in range(3):
        with pytest.raises(asyncio.CancelledError), accounts.connection(TOKEN, NOW + 1, NOW):
            raise asyncio.CancelledError


def test_bytes_are_counted_over_all_requests() -> None:
    """As copies of the file, for as long as the link lives; a small file may be sent more often."""
    accounts = LinkLimits(max_copies=3)
    size_bytes = limits.LEAST_BYTES
    with accounts.connection(TOKEN, NOW + 60, NOW) as usage:
        usage.sent_bytes += 3 * size_bytes - 1
        accounts.check_bytes(usage, size_bytes, NOW)
        usage.sent_bytes += 1
    with accounts.connection(TOKEN, NOW + 60, NOW + 10) as usage:
        with pytest.raises(LinkLimited) as refused:
            accounts.check_bytes(usage, size_bytes, NOW + 10)
        assert refused.value.retry_after_s == 50
    with accounts.connection(OTHER, NOW + 60, NOW) as usage:
        usage.sent_bytes = limits.LEAST_BYTES - 1
        accounts.check_bytes(usage, 1, NOW)


def test_zero_is_no_limit() -> None:
    accounts = LinkLimits(0, 0)
    with ExitStack() as many:
        for _ in range(1000):
            usage = many.enter_context(accounts.connection(TOKEN, NOW + 1, NOW))
        usage.sent_bytes = 1 << 60
        accounts.check_bytes(usage, 1, NOW)


def test_memory_is_bounded_and_the_longest_unused_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINKS_KEPT", 100)
    accounts = LinkLimits(max_connections=1)
    with accounts.connection(TOKEN, NOW + 9, NOW):
        for n in range(1000):
            if n % 50 == 0:
                with pytest.raises(LinkLimited), accounts.connection(TOKEN, NOW + 9, NOW):
                    pass
            with accounts.connection(f"{n:060}", NOW + 9, NOW):
                assert len(accounts._links) <= 100
        for n in range(200):
            with accounts.connection(f"x{n:060}", NOW + 9, NOW):
                pass
    with accounts.connection(TOKEN, NOW + 9, NOW) as usage:  # Forgotten while in use: it begins anew.
        assert usage.connections == 1


def test_links_that_are_over_are_forgotten() -> None:
    accounts = LinkLimits()
    for n in range(100):
        with accounts.connection(f"{n:060}", NOW + n, NOW + n - 1):
            pass
    assert len(accounts._links) <= 2


def test_body_and_zero_copy_messages_are_counted() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def use() -> int:
        with LinkLimits().connection(TOKEN, NOW, NOW) as usage:
            counted = usage.counting(send)
            messages: list[Any] = [
                {"type": "http.response.start", "status": 200, "headers": []},
                {"type": "http.response.body", "body": bytearray(5), "more_body": True},
                {"type": "http.response.zerocopysend", "file": 1, "count": 7, "more_body": True},
                {"type": "http.response.body", "body": b"", "more_body": False},
            ]
            for message in messages:
                await counted(message)
            return usage.sent_bytes

    assert asyncio.run(use()) == 12
    assert len(sent) == 4


def test_link_that_was_sent_too_often_is_429(nas: Nas, monkeypatch: pytest.MonkeyPatch) -> None:
    """For GET and HEAD, with Retry-After; another link to the same file is answered."""
    monkeypatch.setattr(limits, "LEAST_BYTES", 0)
    app = origin_app(nas, max_copies_per_link=2)
    path = link(nas.add("a.mp3", content_of(1000)))
    assert [call(app, path, {"Range": "bytes=0-499"}).status for _ in range(4)] == [206] * 4
    for method in ("GET", "HEAD"):
        answer = call(app, path, method=method)
        assert (answer.status, answer.headers["retry-after"]) == (429, "600")
        assert answer.headers["access-control-allow-origin"] == "*"
    assert call(app, link("loc:1.00000000")).status == 404
    assert call(origin_app(nas, max_copies_per_link=0), path).status == 200


def test_requests_beyond_the_limit_are_429_and_those_before_are_answered(
    nas: Nas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty at once for one link; while they wait for the disk another link is answered."""
    path, other = link(nas.add("a.mp3", b"x" * 100)), link(nas.add("b.mp3", b"y"))
    app = origin_app(nas)
    plain = Files.open

    async def ask_all() -> None:
        go_on = asyncio.Event()

        async def late(self: Files, locator: str) -> Any:
            await go_on.wait()
            return await plain(self, locator)

        monkeypatch.setattr(Files, "open", late)
        waiting = [asyncio.create_task(ask(app, path)) for _ in range(20)]
        refused = []
        for task in asyncio.as_completed(waiting):
            refused.append(await task)
            if len(refused) == 4:
                break
        assert {429} == {answer.status for answer in refused}
        assert {"2"} == {answer.headers["retry-after"] for answer in refused}
        go_on.set()
        assert (await ask(app, other)).status == 200
        answers = [await task for task in waiting]
        assert sorted(answer.status for answer in answers) == [200] * 16 + [429] * 4
        assert (await ask(app, path)).status == 200

    asyncio.run(ask_all())


def test_client_that_leaves_gives_its_connection_back(nas: Nas) -> None:
    app = origin_app(nas, max_connections_per_link=1)
    path = link(nas.add("a.mp3", content_of(1 << 20)))

    async def leave() -> None:
        for _ in range(3):
            task = asyncio.create_task(ask(app, path))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert (await ask(app, path)).status == 200

    asyncio.run(leave())


def test_player_that_hangs_up_in_the_middle_makes_room_for_another(nas: Nas) -> None:
    """Over a real connection, with far more than the buffers on the way hold."""
    path = link(nas.add("a.mp3", content_of(1 << 20) * 32))
    with serving(origin_app(nas, max_connections_per_link=1)) as base_url:
        for _ in range(3):
            with closing(HTTPConnection(urlsplit(base_url).netloc, timeout=20)) as player:
                player.request("GET", path)
                answer = player.getresponse()
                assert answer.status == 200
                assert answer.read(10)
                assert _status(base_url, path) == 429
                answer.close()
            pause = threading.Event()
            assert any(_status(base_url, path) == 200 or pause.wait(0.01) for _ in range(2000))


def _status(base_url: str, path: str) -> int:
    with closing(HTTPConnection(urlsplit(base_url).netloc, timeout=20)) as client:
        client.request("HEAD", path)
        return client.getresponse().status
