"""A store that leaves everything to the one behind it, for stores that do one thing otherwise."""

from __future__ import annotations

from datetime import datetime
from typing import BinaryIO

from stores.base import ListedObject, ObjectInfo, PutMode, Reading, Store


class WrappedStore:
    """The store behind it, as it is."""

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
        return self._store.put(key, body, mode)

    def delete(self, key: str) -> None:
        self._store.delete(key)

    def list_objects(self, prefix: str = "") -> list[ListedObject]:
        return self._store.list_objects(prefix)

    def now(self) -> datetime | None:
        return self._store.now()
