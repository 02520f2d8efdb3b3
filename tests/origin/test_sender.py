"""The sender and the descriptor it reads from: never fewer bytes than promised, never one left open."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from origin import open_file
from origin.open_file import OpenFile
from origin.sender import LARGE_PIECE_BYTES, SMALL_PIECE_BYTES, Outcome, piece_bytes, send_stretch
from tests.origin.conftest import content_of

CONTENT = content_of(3 * LARGE_PIECE_BYTES + 17)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def file(tmp_path: Path, threads: ThreadPoolExecutor) -> Iterator[OpenFile]:
    (tmp_path / "a").write_bytes(CONTENT)
    opened = OpenFile(os.open(tmp_path / "a", os.O_RDONLY), threads)
    yield opened
    opened.close()


class Client:
    """An ASGI client that takes so many pieces and then leaves; 0: it stays."""

    def __init__(self, pieces: int = 0) -> None:
        self.body = bytearray()
        self.complete = False
        self._pieces = pieces
        self._left = asyncio.Event()

    async def receive(self) -> Any:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.body += message["body"]
        self.complete = not message["more_body"]
        self._pieces -= 1
        if self._pieces == 0:
            self._left.set()
        await asyncio.sleep(0)


def run(file: OpenFile, first: int, length: int, pieces: int = 0) -> tuple[Outcome, bytes, bool]:
    async def send() -> tuple[Outcome, bytes, bool]:
        client = Client(pieces)
        outcome = await send_stretch(file, first, length, client.receive, client.send)
        return outcome, bytes(client.body), client.complete

    return asyncio.run(send())


@pytest.mark.parametrize(
    ("first", "length"),
    [(0, len(CONTENT)), (0, 1), (len(CONTENT) - 1, 1), (5, SMALL_PIECE_BYTES), (7, 2 * LARGE_PIECE_BYTES)],
)
def test_exactly_the_stretch_is_sent(file: OpenFile, first: int, length: int) -> None:
    assert (Outcome.COMPLETE, CONTENT[first : first + length], True) == run(file, first, length)


@pytest.mark.parametrize("answer", [errno.EAGAIN, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_a_page_cache_to_read_from(
    file: OpenFile, monkeypatch: pytest.MonkeyPatch, answer: int
) -> None:
    """A miss, a file system or a kernel that cannot say: a thread reads, with the same result."""

    def refuse(*_: object) -> int:
        raise OSError(answer, os.strerror(answer))

    monkeypatch.setattr(os, "preadv", refuse)
    assert run(file, 0, len(CONTENT)) == (Outcome.COMPLETE, CONTENT, True)


def test_without_preadv(file: OpenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows, and macOS without the flag; and there is no pread on Windows."""
    monkeypatch.setattr(file, "_nowait", None)
    monkeypatch.setattr(open_file, "_read_at", open_file._seek_and_read)
    assert (Outcome.COMPLETE, CONTENT[3:], True) == run(file, 3, len(CONTENT) - 3)


def test_short_reads_lose_nothing(file: OpenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page cache may hold only the beginning of a piece."""
    real = os.preadv

    def short(descriptor: int, buffers: Any, offset: int, flags: int) -> int:
        return real(descriptor, (memoryview(buffers[0])[: 1 + offset % 60_000],), offset, flags)

    monkeypatch.setattr(os, "preadv", short)
    assert run(file, 0, len(CONTENT)) == (Outcome.COMPLETE, CONTENT, True)


def test_truncated_file_is_never_complete(file: OpenFile, tmp_path: Path) -> None:
    os.truncate(tmp_path / "a", LARGE_PIECE_BYTES)
    outcome, body, complete = run(file, 0, len(CONTENT))
    assert (Outcome.CUT_SHORT, CONTENT[:LARGE_PIECE_BYTES], False) == (outcome, body, complete)


def test_unreadable_disk_is_never_complete(file: OpenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fail)
    assert run(file, 0, len(CONTENT)) == (Outcome.CUT_SHORT, b"", False)


def test_nothing_is_read_for_a_client_that_left(file: OpenFile) -> None:
    outcome, body, complete = run(file, 0, len(CONTENT), pieces=1)
    assert (outcome, len(body), complete) == (Outcome.CLIENT_LEFT, LARGE_PIECE_BYTES, False)


def test_descriptor_outlives_the_thread_that_reads(file: OpenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is cancelled leaves a read behind: closing now could hand its number to another file."""
    reading, go_on = threading.Event(), threading.Event()
    read: list[bytes] = []

    def slow(descriptor: int, length: int, offset: int) -> bytes:
        reading.set()
        assert go_on.wait(10)
        read.append(os.pread(descriptor, length, offset))
        return read[0]

    monkeypatch.setattr(open_file, "_read_at", slow)
    monkeypatch.setattr(file, "_nowait", None)
    descriptor = file._descriptor

    async def cancel() -> None:
        task = asyncio.create_task(file.read(0, 5))
        await asyncio.to_thread(reading.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        file.close()
        os.fstat(descriptor)  # Still open.

    asyncio.run(cancel())
    go_on.set()
    file._threads.shutdown(wait=True)
    assert [CONTENT[:5]] == read
    with pytest.raises(OSError):
        os.fstat(descriptor)


def test_pieces_are_small_until_a_client_is_known_to_be_quick() -> None:
    """benchmarks/origin.py: 200 slow players cost 35 MiB with small pieces."""
    assert piece_bytes(0, 0) == LARGE_PIECE_BYTES
    assert piece_bytes(2 << 20, 0.001) == SMALL_PIECE_BYTES
    assert piece_bytes(20 << 20, 0.1) == LARGE_PIECE_BYTES
    assert piece_bytes(20 << 20, 60) == SMALL_PIECE_BYTES


def test_a_stretch_that_is_not_the_last_leaves_the_body_open(file: OpenFile) -> None:
    """Several ranges are several stretches of one body; `on_sent` counts what the server has taken."""
    sent: list[int] = []

    async def send() -> tuple[Outcome, bool]:
        client = Client()
        outcome = await send_stretch(
            file, 0, 100_000, client.receive, client.send, is_last=False, on_sent=sent.append
        )
        return outcome, client.complete

    assert asyncio.run(send()) == (Outcome.COMPLETE, False)
    assert sum(sent) == 100_000


def test_others_get_their_turn_between_pieces(file: OpenFile) -> None:
    """With a client that never makes the sender wait, and a kernel that sends by itself."""
    turns = 0
    scope: Any = {"extensions": {"http.response.zerocopysend": {}}}

    async def send(message: Any) -> None:
        sizes.append((message["offset"], message["count"], message["more_body"]))

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def run() -> Outcome:
        task = asyncio.create_task(others())
        outcome = await send_stretch(large, 0, 3 << 20, Client().receive, send, scope=scope)
        task.cancel()
        return outcome

    sizes: list[tuple[int, int, bool]] = []
    large = OpenFile(os.dup(file.fileno()), file._threads)
    large._is_cached = lambda offset, length_bytes: True  # type: ignore[method-assign]
    try:
        assert asyncio.run(run()) is Outcome.COMPLETE
    finally:
        large.close()
    assert sizes == [(0, 1 << 20, True), (1 << 20, 1 << 20, True), (2 << 20, 1 << 20, False)]
    assert turns >= 2
