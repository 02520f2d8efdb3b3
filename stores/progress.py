"""How far a transfer is, counted by whoever moves the bytes and shown by whoever has a screen."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import BinaryIO

Observe = Callable[[str, int, int], None]
"""Called with the stage, the bytes done and the bytes in all (0 when nobody knows); may raise to stop."""


class Progress:
    """Counts bytes, from any thread; without an observer it costs nothing."""

    def __init__(self, observe: Observe | None = None) -> None:
        self._observe = observe
        self._lock = threading.Lock()
        self._stage, self._done, self._total = "", 0, 0

    def begin(self, stage: str, total_bytes: int = 0) -> None:
        """Enter a stage, such as "upload", of so many bytes."""
        with self._lock:
            self._stage, self._done, self._total = stage, 0, total_bytes
            self._tell(0)

    def add(self, size_bytes: int) -> None:
        """Count bytes that have moved."""
        with self._lock:
            self._done += size_bytes
            self._tell(0)

    def watch(self, stream: BinaryIO) -> BinaryIO:
        """The stream, showing how far it was read without counting it yet; `add` its size when it is sent."""
        return _Watched(stream, self._peek)  # type: ignore[return-value]  # the part of BinaryIO that is used

    def _peek(self, position: int) -> None:
        with self._lock:
            self._tell(position)

    def _tell(self, position: int) -> None:
        if self._observe is not None:
            self._observe(self._stage, self._done + position, self._total)


class _Watched:
    """A seekable binary stream that tells where it is; a body may be read twice, once for its checksum."""

    def __init__(self, stream: BinaryIO, tell: Callable[[int], None]) -> None:
        self._stream = stream
        self._tell = tell

    def read(self, size: int = -1) -> bytes:
        piece = self._stream.read(size)
        self._tell(self._stream.tell())
        return piece

    def readinto(self, buffer: bytearray) -> int:
        return self._stream.readinto(buffer)  # type: ignore[attr-defined, no-any-return]  # a file's own method

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
