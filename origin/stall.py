"""Noticing a client that takes nothing any more.

Invariant: a connection on which somebody waits to write is given up after its limit, and at most half of it
later, when not one byte has left the machine for it meanwhile; a slow client is never given up. Neither
uvicorn nor asyncio knows such a limit, so a paused player, or one whose battery died, would hold its
descriptors and its share of the kernel's memory until TCP gives up, if it ever does.
"""

from __future__ import annotations

import asyncio
import struct
import sys
from collections.abc import Callable

# nginx's send_timeout is the same. A player that pauses for longer asks for the rest by a range when it goes
# on: docs/origin.md. Holding on would cost three descriptors for each, of the usual 1,024.
STALL_LIMIT_S = 60.0
_LOOKS_PER_LIMIT = 4

if sys.platform == "linux":
    import fcntl
    import termios

    def unsent_bytes(descriptor: int) -> int:
        """What the kernel holds for a socket's peer: not sent yet, or not acknowledged (tcp(7), SIOCOUTQ)."""
        held: int = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0" * 4))[0]
        return held

else:

    def unsent_bytes(descriptor: int) -> int:
        """Unknown here: only what the kernel takes from us counts as progress."""
        return 0


class StallWatch:
    """Watches one connection while somebody waits to write to it.

    `waiting_bytes` tells how much waits for the client, in this process and in the kernel; while somebody
    waits to write it can only become less. `give_up` is called once.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limit_s: float,
        waiting_bytes: Callable[[], int],
        give_up: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._limit_s = limit_s
        self._waiting_bytes = waiting_bytes
        self._give_up = give_up
        self._is_waiting = False
        self._since_s = 0.0
        self._held_bytes = -1
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Somebody waits from now on."""
        self._is_waiting = True
        self._since_s = self._loop.time()
        self._held_bytes = -1  # Asked for only when a timer fires: most waits end before.
        if self._timer is None:
            self._timer = self._loop.call_later(self._limit_s / _LOOKS_PER_LIMIT, self._look)

    def end(self) -> None:
        """Nobody waits. The timer stays for the next wait: making one for each would cost more than it."""
        self._is_waiting = False

    def close(self) -> None:
        """The connection is gone."""
        self._is_waiting = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if not self._is_waiting:
            return
        now, held = self._loop.time(), self._waiting_bytes()
        if held != self._held_bytes:
            self._since_s, self._held_bytes = now, held
        if now - self._since_s >= self._limit_s:
            self._give_up()
        else:
            self._timer = self._loop.call_later(self._limit_s / _LOOKS_PER_LIMIT, self._look)
