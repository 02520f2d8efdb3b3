"""One open file: the descriptor that is both measured and read, and how it is read without ever waiting.

A stretch is either read, or brought into the page cache so that the kernel can send it by itself.
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
from typing import Any

# What RWF_NOWAIT answers where the kernel or the file system does not know it: preadv2(2).
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)

# One byte of each window tells whether the page cache holds it: Linux reads ahead 128 KiB at a time
# (VM_READAHEAD_PAGES), and lets go of pages in the order in which they came. A narrower hole can be missed,
# and then the loop waits for one read. What would be exact costs more or lies: to read everything into a
# scratch buffer is a third of what the sending costs, mincore(2) says yes to whoever does not own the file
# (since Linux 5.2), and cachestat(2) counts pages that are still on their way from a disk that wakes up.
_WINDOW_BYTES = 256 << 10
_SCRATCH_BYTES = 128 << 10


class OpenFile:
    """A descriptor, which this object owns, and what `os.fstat` said of it; `status`, if that is known."""

    def __init__(self, descriptor: int, threads: Executor, status: os.stat_result | None = None) -> None:
        self.stat = os.fstat(descriptor) if status is None else status
        self._descriptor = descriptor
        self._threads = threads
        self._nowait = _NOWAIT
        self._reading: Future[Any] | None = None

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

    def is_local(self) -> bool:
        """Whether the file system can be read without waiting; those of networks and of FUSE cannot.

        Asks for one byte, and only of the page cache.
        """
        if self._nowait is None:
            return False
        try:
            os.preadv(self._descriptor, (bytearray(1),), 0, self._nowait)
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def fileno(self) -> int:
        """The descriptor, for as long as this object is open."""
        return self._descriptor

    async def make_ready(self, offset: int, length_bytes: int) -> bool:
        """Return when the page cache holds a stretch, so that to send it does not wait for the disk.

        False when nobody can say, because the kernel or the file system does not know how to.
        Raises:
            OSError: as reading does.
            EOFError: the file ends before the stretch does.
        """
        cached = self._is_cached(offset, length_bytes)
        if cached is not False:
            return cached is True
        self._reading = self._threads.submit(_read_through, self._descriptor, length_bytes, offset)
        await asyncio.wrap_future(self._reading)
        return True

    def _is_cached(self, offset: int, length_bytes: int) -> bool | None:
        """Whether the page cache holds a stretch; None when nobody can say. Raises: OSError, EOFError."""
        if self._nowait is None:
            return None
        byte = (bytearray(1),)
        end = offset + length_bytes
        try:
            for place in (*range(offset, end, _WINDOW_BYTES), end - 1):
                if not os.preadv(self._descriptor, byte, place, self._nowait):
                    raise EOFError("the file has become shorter")
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            self._nowait = None
            return None
        return True

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


def _read_through(descriptor: int, length_bytes: int, offset: int) -> None:
    """Read a stretch for the page cache's sake, and let the disk begin with the next one.

    Raises: OSError as reading does; EOFError when the file ends before.
    """
    scratch = bytearray(_SCRATCH_BYTES)
    end = offset + length_bytes
    while offset < end:
        found = os.preadv(descriptor, (scratch,), offset)
        if not found:
            raise EOFError("the file has become shorter")
        offset += found
    os.posix_fadvise(descriptor, end, length_bytes, os.POSIX_FADV_WILLNEED)


def _seek_and_read(descriptor: int, length_bytes: int, offset: int) -> bytes:
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, length_bytes)


# Windows has no pread; one request at a time moves the position of its own descriptor.
_read_at: Callable[[int, int, int], bytes]
if sys.platform == "win32":
    _read_at = _seek_and_read
else:
    _read_at = os.pread
