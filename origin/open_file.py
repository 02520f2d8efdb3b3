"""One open file: the descriptor that is both measured and read, and how it is read without ever waiting.

Invariant: the event loop never waits for a disk, and a descriptor is closed exactly once, not before the
last thread that reads from it is done. What is read is decided by `origin.sender`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future

# What RWF_NOWAIT answers where the kernel or the file system does not know it: preadv2(2).
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)


class OpenFile:
    """A descriptor, which this object owns, and what `os.fstat` said of it."""

    def __init__(self, descriptor: int, threads: Executor) -> None:
        self.stat = os.fstat(descriptor)
        self._descriptor = descriptor
        self._threads = threads
        self._nowait = _NOWAIT
        self._reading: Future[bytes] | None = None

    async def read(self, offset: int, length_bytes: int) -> bytes | bytearray:
        """Up to `length_bytes` bytes from `offset` on; empty at the end of the file.

        Returns what the page cache holds, fewer bytes than asked for if need be, without a thread; only when
        the first byte is not there, a thread waits for the disk.
        Raises:
            OSError: as reading does.
        """
        if self._nowait is not None:
            piece = bytearray(length_bytes)
            try:
                found = os.preadv(self._descriptor, (piece,), offset, self._nowait)
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                self._nowait = None
            else:
                del piece[found:]
                return piece
        self._reading = self._threads.submit(_read_at, self._descriptor, length_bytes, offset)
        return await asyncio.wrap_future(self._reading)

    def close(self) -> None:
        """Close the descriptor, now or when the thread that reads from it is done."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        # A request that is cancelled leaves its thread behind, and by then the number may be another file's.
        if self._reading is None or self._reading.done():
            os.close(descriptor)
        else:
            self._reading.add_done_callback(lambda _: os.close(descriptor))


def _seek_and_read(descriptor: int, length_bytes: int, offset: int) -> bytes:
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, length_bytes)


# Windows has no pread; one request at a time moves the position of its own descriptor.
_read_at: Callable[[int, int, int], bytes]
if sys.platform == "win32":
    _read_at = _seek_and_read
else:
    _read_at = os.pread
