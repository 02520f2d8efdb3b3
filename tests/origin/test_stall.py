"""Clients that take nothing any more are dropped; slow ones are not; and a server that ends, ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, cast

import pytest

from origin.sender import Outcome
from origin.stall import StallWatch
from tests.origin.conftest import content_of
from tests.origin.file_server import connect, file_server, read_exactly, read_head, read_response, request

SIZE = 24 << 20
SMALL_BUFFER = 64 << 10


class Clock:
    """An event loop as far as `StallWatch` needs one: time passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Clock:
        self.timers.append((self.now + delay_s, callback))
        return self

    def cancel(self) -> None:
        self.timers.clear()

    def pass_until(self, now: float) -> None:
        while self.timers and self.timers[0][0] <= now:
            self.now, callback = self.timers.pop(0)
            callback()
        self.now = now


class Connection:
    def __init__(self) -> None:
        self.clock = Clock()
        self.held = 1000
        self.dropped_at: list[float] = []
        self.watch = StallWatch(
            cast("asyncio.AbstractEventLoop", self.clock),
            60,
            lambda: self.held,
            lambda: self.dropped_at.append(self.clock.now),
        )


def test_stalled_client_is_dropped_once_after_the_limit() -> None:
    connection = Connection()
    connection.watch.begin()
    connection.clock.pass_until(500)
    assert connection.dropped_at == [75]


def test_client_that_takes_a_byte_now_and_then_is_kept() -> None:
    """The socket becomes writable only when much of its buffer is free: that takes a slow client minutes."""
    connection = Connection()
    connection.watch.begin()
    for now in range(50, 1000, 50):
        connection.clock.pass_until(now)
        connection.held -= 1
    assert connection.dropped_at == []
    connection.clock.pass_until(1100)
    assert len(connection.dropped_at) == 1


def test_waits_are_counted_each_for_itself() -> None:
    connection = Connection()
    for now in range(0, 1000, 40):
        connection.clock.pass_until(now)
        connection.watch.begin()
        connection.clock.pass_until(now + 39)
        connection.watch.end()
    connection.clock.pass_until(2000)
    assert (connection.dropped_at, connection.clock.timers) == ([], [])


def test_no_timer_outlives_the_connection() -> None:
    connection = Connection()
    connection.watch.begin()
    connection.watch.close()
    connection.clock.pass_until(500)
    assert connection.dropped_at == []


@pytest.mark.parametrize("is_portable", [False, True])
def test_paused_player_is_dropped_and_goes_on_by_a_range(tmp_path: Path, is_portable: bool) -> None:
    """It gets what it had not read yet, sees the connection end early, and asks for the rest."""
    content = content_of(1 << 20) * (SIZE >> 20)
    (tmp_path / "a").write_bytes(content)
    server = file_server(tmp_path, is_portable=is_portable, stall_limit_s=0.2)
    with server as (app, base_url):
        with closing(connect(base_url, SMALL_BUFFER)) as player:
            player.sendall(request("/a"))
            read_head(player)
            assert app.outcomes.get(timeout=20)[0] is Outcome.CLIENT_LEFT  # While nothing is read.
            played = bytearray()
            with suppress(ConnectionResetError):
                while piece := player.recv(1 << 20):
                    played += piece
        assert 0 < len(played) < SIZE
        with closing(connect(base_url)) as player:
            player.sendall(request(f"/a?{len(played)}"))
            assert content == bytes(played) + read_response(player)


@pytest.mark.parametrize("is_portable", [False, True])
def test_shutdown_lets_a_response_end(tmp_path: Path, is_portable: bool) -> None:
    content = content_of(1 << 20) * (SIZE >> 20)
    (tmp_path / "a").write_bytes(content)
    server = file_server(tmp_path, is_portable=is_portable, shutdown_s=20)
    _, base_url = server.__enter__()
    with closing(connect(base_url, SMALL_BUFFER)) as client:
        client.sendall(request("/a"))
        _, length = read_head(client)
        end = threading.Thread(target=server.__exit__, args=(None, None, None))
        end.start()
        assert content == read_exactly(client, length)
        assert client.recv(1) == b""  # No keep-alive any more.
    end.join(20)
    assert not end.is_alive()


@pytest.mark.parametrize("is_portable", [False, True])
def test_shutdown_does_not_wait_for_a_player_that_is_paused(
    tmp_path: Path, is_portable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a").write_bytes(bytes(SIZE))
    server: Any = file_server(tmp_path, is_portable=is_portable, shutdown_s=1)
    _, base_url = server.__enter__()
    with closing(connect(base_url, SMALL_BUFFER)) as client:
        client.sendall(request("/a"))
        read_head(client)
        end = threading.Thread(target=server.__exit__, args=(None, None, None))
        end.start()
        end.join(20)
        assert not end.is_alive()
