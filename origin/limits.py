"""How much one link may be used at once and altogether, so that a leaked one cannot drain an uplink.

Invariant: what was counted up when a request began is counted down when it ends, however it ends; every
step takes constant time; no more than `LINKS_KEPT` links are remembered, the longest unused is forgotten
first, and a link that was forgotten begins anew. All of it happens in the event loop, so nothing is locked,
and in one process: several workers count each for itself.
"""

from __future__ import annotations

from collections import OrderedDict
from types import TracebackType
from typing import TYPE_CHECKING

from origin.metrics import body_bytes_of

if TYPE_CHECKING:
    from litestar.types import Message, Send

# Seeks overlap, and a download manager opens up to 16 connections to one server (aria2's greatest).
MAX_CONNECTIONS = 16
# A track that is heard, sought in and heard again is sent a few times; a listener who shares the link with
# some friends reaches ten.
MAX_COPIES = 20
# A seek leaves some MiB in the buffers on the way, so in a small file much is sent that is never heard.
LEAST_BYTES = 256 << 20

LINKS_KEPT = 16_384  # About 5 MB. Nobody can make links up: only those that we signed are counted.
_CONNECTION_FREE_S = 2  # A seek that overlaps is over by then.
_KEY_CHARS = 32  # 192 bits of the MAC at the token's end; not enough to be the link.


class Usage:
    """What one link is used for now, and what it has been sent; in a `with` block, by one request more."""

    __slots__ = ("connections", "expires_at", "sent_bytes")

    def __init__(self, expires_at: int) -> None:
        self.expires_at = expires_at
        self.connections = 0
        self.sent_bytes = 0

    def __enter__(self) -> Usage:
        self.connections += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connections -= 1

    def counting(self, send: Send) -> Send:
        """The same `send`, which counts the bytes of every body that it passes on."""

        async def counted(message: Message) -> None:
            await send(message)
            self.sent_bytes += body_bytes_of(message)

        return counted


class LinkLimited(Exception):
    """A link that is used too much; `retry_after_s` is when asking again has a chance."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LinkLimits:
    """The accounts of all links; `max_connections` and `max_copies` of 0 mean no limit."""

    def __init__(self, max_connections: int = MAX_CONNECTIONS, max_copies: int = MAX_COPIES) -> None:
        self._max_connections = max_connections
        self._max_copies = max_copies
        self._links: OrderedDict[str, Usage] = OrderedDict()

    def connection(self, token: str, expires_at: int, now: float) -> Usage:
        """The account of a token that was verified, for `with` to count one request more.

        Raises:
            LinkLimited: the link has as many already.
        """
        usage = self._usage(token, expires_at, now)
        if self._max_connections and usage.connections >= self._max_connections:
            raise LinkLimited(f"it has {usage.connections} requests at once", _CONNECTION_FREE_S)
        return usage

    def check_bytes(self, usage: Usage, size_bytes: int, now: float) -> None:
        """See to it that a link has not been sent its file too often.

        Raises:
            LinkLimited: it has; that stays so until the link expires.
        """
        if self._max_copies and usage.sent_bytes >= max(self._max_copies * size_bytes, LEAST_BYTES):
            raise LinkLimited(
                f"it was sent {usage.sent_bytes} bytes of a file of {size_bytes}",
                max(1, int(usage.expires_at - now)),
            )

    def _usage(self, token: str, expires_at: int, now: float) -> Usage:
        key = token[-_KEY_CHARS:]
        usage = self._links.get(key)
        if usage is not None:
            self._links.move_to_end(key)
            return usage
        # Two out for one in, where they are over: so what is kept tends to what is in use.
        for _ in range(2):
            oldest = next(iter(self._links), None)
            if oldest is None:
                break
            if len(self._links) < LINKS_KEPT and self._links[oldest].expires_at > now:
                break
            del self._links[oldest]  # A request that is under way keeps its own account.
        usage = self._links[key] = Usage(expires_at)
        return usage
