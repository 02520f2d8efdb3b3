"""A store that ignores preconditions, for an operator who swears that nobody else publishes to it.

Invariant: a condition is checked by looking first, which is right only while there is one publisher.
"""

from __future__ import annotations

from datetime import datetime
from typing import BinaryIO

from contracts.errors import ObjectMissing
from stores.base import ListedObject, ObjectInfo, Overwrite, PutMode, Reading, Store, verify_mode


class SinglePublisherStore:
    """The store behind it, with conditions that are looked up instead of sent."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.address = store.address

    def head(self, key: str) -> ObjectInfo:
        return self._store.head(key)

    def get(self, key: str, start: int = 0) -> Reading:
        return self._store.get(key, start)

    def get_if_changed(self, key: str, etag: str) -> Reading | None:
        return self._store.get_if_changed(key, etag)

    def put(self, key: str, body: bytes | BinaryIO, mode: PutMode) -> str:
        if not isinstance(mode, Overwrite):
            try:
                found = self._store.head(key).etag
            except ObjectMissing:
                found = None
            verify_mode(key, mode, found)
        return self._store.put(key, body, Overwrite())

    def delete(self, key: str) -> None:
        self._store.delete(key)

    def list_objects(self, prefix: str = "") -> list[ListedObject]:
        return self._store.list_objects(prefix)

    def now(self) -> datetime | None:
        return self._store.now()
