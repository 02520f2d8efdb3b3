"""The sender: a stretch of an open file to an ASGI server, piece by piece.

Where the server offers to let the kernel send a file by itself (`origin.http_protocol` does), long stretches
are sent so; everything else, and every other server, gets bytes.
Invariant: as many bytes are sent as were promised, or the response is left unfinished, which makes the
server close the connection; a client that has left is noticed, and nothing more is read for it; no disk is
waited for. At most one piece is held per client beyond what the server buffers, and none where the kernel
sends. What to send is decided in `origin.conditions`; how long a client may take no byte is the server's
business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

from origin.http_protocol import NOTHING_SENT, ZERO_COPY
from origin.open_file import OpenFile

if TYPE_CHECKING:
    from litestar.types import HTTPScope, Receive, Send

# Large pieces mean fewer turns of the event loop. A slow client holds what the server buffers and one piece
# that waits for it: 200 of them 34 MiB with 48 KiB, 48 MiB with 64 KiB, because uvicorn takes another piece
# until it holds more than 64 KiB (benchmarks/origin.py).
LARGE_PIECE_BYTES = 256 << 10
SMALL_PIECE_BYTES = 48 << 10
# Most requests of a player end here, and a slow client is here for a few seconds of its track only.
_START_BYTES = 1 << 20
# By now the kernel's buffers are full (Linux's tcp_wmem and tcp_rmem: 4 and 6 MiB); the rate is the client's.
_KNOWN_BYTES = 12 << 20
_QUICK_BYTES_PER_S = 4 << 20  # Twenty times what lossless audio needs; the client is copying.

# How much one client gets before the others have a turn: with a file in the page cache and a client that is
# quick enough, nothing else here ever waits.
_TURN_BYTES = 1 << 20

# On a busy machine ranges of 64 to 256 KiB cost the same either way, and longer ones less without copying.
ZERO_COPY_FROM_BYTES = 256 << 10
ZERO_COPY_PIECE_BYTES = 1 << 20
# A piece is in the page cache when its sending begins. One that takes long is followed by small ones, so that
# not much is sent long after it was looked for.
_LONG_PIECE_S = 1.0
ZERO_COPY_SLOW_PIECE_BYTES = 256 << 10


def piece_bytes(sent_bytes: int, elapsed_s: float) -> int:
    """How much to read at a time for a client that has been sent so much in so many seconds."""
    if sent_bytes < _START_BYTES:
        return LARGE_PIECE_BYTES
    if sent_bytes < _KNOWN_BYTES or sent_bytes < elapsed_s * _QUICK_BYTES_PER_S:
        return SMALL_PIECE_BYTES
    return LARGE_PIECE_BYTES


class Outcome(Enum):
    """How a response ended."""

    COMPLETE = "complete"
    CLIENT_LEFT = "client left"
    CUT_SHORT = "cut short"  # The file has fewer bytes than when it was opened, or cannot be read any more.


async def send_stretch(
    file: OpenFile,
    first: int,
    length_bytes: int,
    receive: Receive,
    send: Send,
    *,
    is_last: bool = True,
    scope: HTTPScope | None = None,
    on_sent: Callable[[int], object] = lambda sent_bytes: None,
) -> Outcome:
    """Send `length_bytes` bytes of `file` from `first` on as the body of a response whose start is sent.

    With `is_last` false more of the body follows, and the caller sends it after `COMPLETE`. On any other
    outcome the body has no end: the caller must return without sending one. `scope` tells what the server
    offers; a response with one must be framed by Content-Length. `on_sent` is called with the size of each
    piece that the server has taken.
    """
    stretch = _Stretch(file, first, length_bytes, receive, send, is_last, on_sent)
    try:
        if length_bytes >= ZERO_COPY_FROM_BYTES and scope is not None and ZERO_COPY in _extensions(scope):
            outcome = await stretch.let_kernel_send()
            if outcome is not None:
                return outcome
        return await stretch.send_bytes()
    finally:
        stretch.close()


def _extensions(scope: HTTPScope) -> Mapping[str, object]:
    return scope.get("extensions") or {}


class _Stretch:
    """What is left to send: `offset` moves from the first byte to `end`."""

    def __init__(
        self,
        file: OpenFile,
        first: int,
        length_bytes: int,
        receive: Receive,
        send: Send,
        is_last: bool,
        on_sent: Callable[[int], object],
    ) -> None:
        self.file = file
        self.first = first
        self.offset = first
        self.end = first + length_bytes
        self.receive = receive
        self.send = send
        self.is_last = is_last
        self.on_sent = on_sent
        self.clock = asyncio.get_running_loop().time
        self._leaving: asyncio.Future[None] | None = None

    async def has_left(self) -> bool:
        """Whether the client has left. After that send() of uvicorn returns at once: only receive() tells.

        Asked for the first time when a piece has been sent: most answers have no more, and to watch for it
        costs more than a small one.
        """
        if self._leaving is None:
            self._leaving = asyncio.ensure_future(_left(self.receive))
            await asyncio.sleep(0)  # Lets it look.
        return self._leaving.done()

    def close(self) -> None:
        """Watch no longer."""
        if self._leaving is not None:
            self._leaving.cancel()

    async def let_kernel_send(self) -> Outcome | None:
        """Send without copying; None when that is impossible, and the rest is still to be sent."""
        wanted = ZERO_COPY_PIECE_BYTES
        while True:
            count = min(wanted, self.end - self.offset)
            message = {
                "type": ZERO_COPY,
                "file": self.file,
                "offset": self.offset,
                "count": count,
                "more_body": self.offset + count < self.end or not self.is_last,
            }
            try:
                if not await self.file.make_ready(self.offset, count):
                    return None
                began_s = self.clock()
                await self.send(cast("Any", message))
            except EOFError:
                return Outcome.CUT_SHORT
            except OSError as error:
                return None if error.errno in NOTHING_SENT else Outcome.CUT_SHORT
            self.offset += count
            self.on_sent(count)
            if self.offset == self.end:
                return Outcome.COMPLETE
            is_long = self.clock() - began_s > _LONG_PIECE_S
            wanted = ZERO_COPY_SLOW_PIECE_BYTES if is_long else ZERO_COPY_PIECE_BYTES
            if self._leaving is not None:
                await asyncio.sleep(0)
            if await self.has_left():
                return Outcome.CLIENT_LEFT

    async def send_bytes(self) -> Outcome:
        """Send in the way that every server understands."""
        turn_ends = self.offset + _TURN_BYTES
        started_s = self.clock()
        while True:
            try:
                wanted = piece_bytes(self.offset - self.first, self.clock() - started_s)
                piece = await self.file.read(self.offset, min(wanted, self.end - self.offset))
            except OSError:
                return Outcome.CUT_SHORT
            if not piece and self.offset < self.end:
                return Outcome.CUT_SHORT
            self.offset += len(piece)
            more_body = self.offset < self.end or not self.is_last
            # A bytearray is a byte string to every server, only not to the type of the message.
            await self.send(
                {"type": "http.response.body", "body": cast("bytes", piece), "more_body": more_body}
            )
            self.on_sent(len(piece))
            if self.offset == self.end:
                return Outcome.COMPLETE
            if self.offset >= turn_ends:
                turn_ends = self.offset + _TURN_BYTES
                await asyncio.sleep(0)
            if await self.has_left():
                return Outcome.CLIENT_LEFT


async def _left(receive: Receive) -> None:
    """Return when the client has left; what it may still send is dropped."""
    while (await receive())["type"] != "http.disconnect":
        pass
