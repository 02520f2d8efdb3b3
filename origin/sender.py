"""The portable sender: a stretch of an open file to an ASGI server, piece by piece.

Invariant: as many bytes are sent as were promised, or the response is left unfinished, which makes the
server close the connection; a client that has left is noticed, and nothing more is read for it. At most one
piece is held per client beyond what the server buffers. What to send is decided in `origin.conditions`;
stall timeouts and sending without copying are not here.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING, cast

from origin.open_file import OpenFile

if TYPE_CHECKING:
    from litestar.types import Receive, Send

# benchmarks/origin_portable.py: large pieces take a fifth less CPU, small ones half the memory of a slow
# client, which holds two: one that the server buffers and one that waits for it.
LARGE_PIECE_BYTES = 256 << 10
SMALL_PIECE_BYTES = 64 << 10
# Most requests of a player end here, and a slow client is here for a few seconds of its track only.
_START_BYTES = 1 << 20
# By now the kernel's buffers are full (Linux's tcp_wmem and tcp_rmem: 4 and 6 MiB); the rate is the client's.
_KNOWN_BYTES = 12 << 20
_QUICK_BYTES_PER_S = 4 << 20  # Twenty times what lossless audio needs; the client is copying.

# How much one client gets before the others have a turn: with a file in the page cache and a client that is
# quick enough, nothing else here ever waits.
_TURN_BYTES = 1 << 20


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
    file: OpenFile, first: int, length_bytes: int, receive: Receive, send: Send
) -> Outcome:
    """Send `length_bytes` bytes of `file` from `first` on as the body of a response whose start is sent.

    On any outcome but `COMPLETE` the body has no end: the caller must return without sending one.
    """
    if length_bytes <= SMALL_PIECE_BYTES:
        return await _send_pieces(file, first, length_bytes, send, None)
    # After a client left, send() of uvicorn returns at once and silently: only receive() tells.
    leaving = asyncio.ensure_future(_left(receive))
    try:
        return await _send_pieces(file, first, length_bytes, send, leaving)
    finally:
        leaving.cancel()


async def _send_pieces(
    file: OpenFile, first: int, length_bytes: int, send: Send, leaving: asyncio.Future[None] | None
) -> Outcome:
    offset, end = first, first + length_bytes
    turn_ends = first + _TURN_BYTES
    clock = asyncio.get_running_loop().time
    started_s = clock()
    while True:
        try:
            wanted = min(piece_bytes(offset - first, clock() - started_s), end - offset)
            piece = await file.read(offset, wanted)
        except OSError:
            return Outcome.CUT_SHORT
        if not piece and offset < end:
            return Outcome.CUT_SHORT
        offset += len(piece)
        # A bytearray is a byte string to every server, only not to the type of the message.
        await send({"type": "http.response.body", "body": cast("bytes", piece), "more_body": offset < end})
        if offset == end:
            return Outcome.COMPLETE
        if offset >= turn_ends:
            turn_ends = offset + _TURN_BYTES
            await asyncio.sleep(0)
        if leaving is not None and leaving.done():
            return Outcome.CLIENT_LEFT


async def _left(receive: Receive) -> None:
    """Return when the client has left; what it may still send is dropped."""
    while (await receive())["type"] != "http.disconnect":
        pass
