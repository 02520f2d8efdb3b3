"""uvicorn's HTTP protocol, with what it lacks for sending large files to people who come and go.

Invariant: whatever a client does, no byte that is not the response's gets into a response, nobody waits for
a client for ever, and a request that is being answered learns at once that its client has left. Where the
kernel can send a file by itself, the ASGI extension `http.response.zerocopysend` is offered: on Linux,
without TLS. What is sent, and whether the page cache has it, is the application's business (`origin.sender`).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import sys
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from origin.logs import event
from origin.stall import STALL_LIMIT_S, StallWatch, unsent_bytes

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope
    from uvicorn.config import Config
    from uvicorn.server import ServerState

logger = logging.getLogger("origin")

ZERO_COPY = "http.response.zerocopysend"
# uvloop answers loop.sendfile with NotImplementedError, and asyncio's hangs when it is closed meanwhile
# (Python 3.11), so the system call is made here. Elsewhere than on Linux nobody can say whether it would wait
# for a disk.
CAN_ZERO_COPY = sys.platform == "linux"

# A client that reads slowly pins what the kernel accepts for it: up to tcp_wmem, 4 MiB. This bounds what is
# not sent yet, and unlike SO_SNDBUF neither what is under way nor the rate over a long distance (tcp(7)).
_UNSENT_BYTES = 512 << 10
# Whoever empties that within milliseconds, again and again, is copying files over a fast network. More of it
# then means fewer waits. What that saves by itself was not told apart from the machine's noise; with it, a
# whole file costs 0.8 of nginx's CPU (benchmarks/origin.py). A player is never that quick for long.
_UNSENT_QUICK_BYTES = 2 << 20
_QUICK_WAIT_S = 0.01
_QUICK_WAITS = 8
_TURN_BYTES = 1 << 20  # So much for one client, then the others have a turn: a quick one never makes us wait.
# What dup(2) and sendfile(2) say when they cannot do it at all: no byte of the message was sent then.
NOTHING_SENT = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMFILE, errno.ENFILE})


def bound_kernel_buffers(connection: socket.socket, unsent_bytes: int = _UNSENT_BYTES) -> None:
    """Let the kernel hold at most so much unsent. What a listener is told holds for what it accepts."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # Linux and macOS.
    if option is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, option, unsent_bytes)


class OriginProtocol(HttpToolsProtocol):
    """One connection. `stall_limit_s` is how long it may take no byte while there is something to send."""

    stall_limit_s = STALL_LIMIT_S

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._application = self.app
        self.app = self._answer  # What uvicorn calls for each request.
        self._answering: RequestResponseCycle | None = None
        self._is_lost = False
        self._socket: Any = None
        self._offers_zero_copy = False
        self._quick_waits = 0
        self._duplicate = -1  # Of the socket's descriptor, while a response is sent by the kernel.
        self._writable: asyncio.Future[None] | None = None
        self._stall = StallWatch(self.loop, self.stall_limit_s, self._waiting_bytes, self._give_up)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._socket = transport.get_extra_info("socket")
        self._offers_zero_copy = CAN_ZERO_COPY and self._socket is not None and self.scheme == "http"

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        super().connection_lost(exc)
        self._stall.close()
        # uvicorn tells only the request that arrived last; with pipelining another one is being answered.
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()
        self._wake()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._offers_zero_copy:
            self.scope["extensions"] = {ZERO_COPY: {}}

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall.begin()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stall.end()

    def send_400_response(self, msg: str) -> None:
        """Refuse garbage; uvicorn would write its 400 into the middle of a response that is under way."""
        latest: RequestResponseCycle | None = self.cycle
        if self.pipeline or (latest is not None and not latest.response_complete):
            self.transport.abort()
        else:
            super().send_400_response(msg)

    async def _answer(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        cycle = cast("RequestResponseCycle", send.__self__)  # type: ignore[attr-defined]
        self._answering = cycle
        if self._is_lost:  # While it waited for its turn.
            cycle.disconnected = True

        async def send_or_copy(message: ASGISendEvent) -> None:
            if message["type"] == ZERO_COPY:
                await self._send_file(cycle, cast("dict[str, Any]", message))
            else:
                await send(message)

        try:
            await self._application(scope, receive, send_or_copy)
        except asyncio.CancelledError:
            # The server ends. To close would wait for a client that may never read what is buffered for it.
            self.transport.abort()
            raise
        finally:
            if self._duplicate >= 0:
                os.close(self._duplicate)
                self._duplicate = -1

    async def _send_file(self, cycle: RequestResponseCycle, message: dict[str, Any]) -> None:
        """One message of the extension (ASGI, "Zero Copy Send"); returns silently when the client has left.

        Raises:
            RuntimeError: the extension is not offered here, or the response is not framed by Content-Length,
                or has not as many bytes left.
            EOFError: the file has fewer bytes than were asked for.
            OSError: it cannot be read. With the errors in `NOTHING_SENT` nothing was sent, and the same bytes
                can be sent in the ordinary way.
        """
        if cycle.disconnected:
            return
        if (
            not self._offers_zero_copy
            or cycle.chunked_encoding is not False
            or cycle.scope["method"] == "HEAD"
        ):
            raise RuntimeError("zero-copy send needs a plain connection and a body framed by Content-Length")
        file = message["file"]
        descriptor = file if isinstance(file, int) else file.fileno()
        offset, count = message.get("offset"), message.get("count")
        if offset is None:
            offset = os.lseek(descriptor, 0, os.SEEK_CUR)
        if count is None:
            count = os.fstat(descriptor).st_size - offset
        if count > cycle.expected_content_length:
            raise RuntimeError("Response content longer than Content-Length")
        self.flow.resume_reading()  # As receive() does: who has left is seen by reading.
        await self._copy(cycle, descriptor, offset, count)
        if not cycle.disconnected:
            cycle.expected_content_length -= count
            if not message.get("more_body", False):
                await cycle.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _copy(self, cycle: RequestResponseCycle, descriptor: int, offset: int, count: int) -> None:
        await self._drain()
        if cycle.disconnected or self.transport.is_closing():
            cycle.disconnected = True
            return
        if self._duplicate < 0:
            # The number of the transport's own may be another connection's after any await.
            self._duplicate = os.dup(self._socket.fileno())
        while count:
            try:
                sent = os.sendfile(self._duplicate, descriptor, offset, min(count, _TURN_BYTES))
            except BlockingIOError:
                await self._until_writable(self._duplicate)
                if self._is_lost:
                    return
                continue
            except (ConnectionError, TimeoutError):
                cycle.disconnected = True
                self.transport.abort()
                return
            if not sent:
                raise EOFError("the file has become shorter")
            offset += sent
            count -= sent
            if sent == _TURN_BYTES and count:
                await asyncio.sleep(0)

    async def _drain(self) -> None:
        """Return when the transport holds nothing: what it holds comes before what is sent beside it."""
        if self.transport.get_write_buffer_size():
            await asyncio.sleep(0)  # uvloop writes at the end of each turn: most often a head, and it fits.
        if self.transport.get_write_buffer_size():
            self.transport.set_write_buffer_limits(high=0)
            try:
                await self.flow.drain()
            finally:
                self.transport.set_write_buffer_limits()

    async def _until_writable(self, descriptor: int) -> None:
        began_s = self.loop.time()
        self._writable = self.loop.create_future()
        self.loop.add_writer(descriptor, self._wake)
        self._stall.begin()
        try:
            await self._writable
        finally:
            self._stall.end()
            self.loop.remove_writer(descriptor)
            self._writable = None
        if not self._is_lost:
            self._adapt(descriptor, self.loop.time() - began_s)

    def _adapt(self, descriptor: int, waited_s: float) -> None:
        """Let the kernel hold more for a client that is quick, and less again for one that no longer is."""
        was_quick = self._quick_waits >= _QUICK_WAITS
        self._quick_waits = self._quick_waits + 1 if waited_s < _QUICK_WAIT_S else 0
        is_quick = self._quick_waits >= _QUICK_WAITS
        if is_quick != was_quick:
            connection = socket.socket(fileno=descriptor)
            try:
                bound_kernel_buffers(connection, _UNSENT_QUICK_BYTES if is_quick else _UNSENT_BYTES)
            finally:
                connection.detach()

    def _wake(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def _waiting_bytes(self) -> int:
        waiting = self.transport.get_write_buffer_size()
        if not self.transport.is_closing():  # Then its number may be another's.
            waiting += unsent_bytes(self._socket.fileno())
        return waiting

    def _give_up(self) -> None:
        logger.info(
            "a client took no byte for %g s and was dropped", self.stall_limit_s, extra=event("stalled")
        )
        self.transport.abort()
