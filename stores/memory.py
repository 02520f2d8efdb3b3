"""A store in memory, for tests and simulations; the compliance suite holds it to the same rules as all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import BinaryIO

from contracts.digests import digest_bytes
from contracts.errors import ObjectMissing
from stores.base import PIECE_BYTES, ListedObject, ObjectInfo, PutMode, Reading, verify_mode


class MemoryStore:
    """Objects in a dictionary; safe between threads. `clock` dates what is written."""

    address = "memory:"

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.objects: dict[str, bytes] = {}
        self._modified: dict[str, datetime] = {}
        self._clock = clock
        self._lock = threading.Lock()

    def head(self, key: str) -> ObjectInfo:
        content = self._load(key)
        return ObjectInfo(len(content), digest_bytes(content))

    def get(self, key: str, start: int = 0) -> Reading:
        content = self._load(key)
        return Reading(ObjectInfo(len(content), digest_bytes(content)), _pieces(content, start))

    def get_if_changed(self, key: str, etag: str) -> Reading | None:
        reading = self.get(key)
        return None if reading.info.etag == etag else reading

    def put(self, key: str, body: bytes | BinaryIO, mode: PutMode) -> str:
        content = body if isinstance(body, bytes) else body.read()
        with self._lock:
            found = self.objects.get(key)
            verify_mode(key, mode, None if found is None else digest_bytes(found))
            self.objects[key] = content
            self._modified[key] = self._clock()
        return digest_bytes(content)

    def delete(self, key: str) -> None:
        with self._lock:
            self.objects.pop(key, None)

    def list_objects(self, prefix: str = "") -> list[ListedObject]:
        with self._lock:
            return [
                ListedObject(key, len(content), self._modified.get(key) or self._clock())
                for key, content in self.objects.items()
                if key.startswith(prefix)
            ]

    def now(self) -> datetime | None:
        return None

    def _load(self, key: str) -> bytes:
        with self._lock:
            if key not in self.objects:
                raise ObjectMissing(key, self.address)
            return self.objects[key]


def _pieces(content: bytes, start: int) -> Iterator[bytes]:
    for offset in range(start, len(content), PIECE_BYTES):
        yield content[offset : offset + PIECE_BYTES]
