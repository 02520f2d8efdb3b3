"""A store whose server compares entity tags without their quotes.

Invariant: only the condition of an update is spelt differently. RFC 9110, section 13.1.1, wants the quotes;
Ceph RGW 16 answers 412 to a tag that has them (docs/providers.md). That such a server refuses another tag,
spelt so, was asked before this is used (publisher/probe.py): one that ignored what it cannot parse would
overwrite.
"""

from __future__ import annotations

from datetime import datetime
from typing import BinaryIO

from stores.base import ListedObject, ObjectInfo, PutMode, Reading, Store, Update


class UnquotedStore:
    """The store behind it, told entity tags without quotes."""

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
        return self._store.put(key, body, unquote(mode))

    def delete(self, key: str) -> None:
        self._store.delete(key)

    def list_objects(self, prefix: str = "") -> list[ListedObject]:
        return self._store.list_objects(prefix)

    def now(self) -> datetime | None:
        return self._store.now()


def unquote(mode: PutMode) -> PutMode:
    """The same mode, its entity tag without quotes."""
    return Update(mode.etag.strip('"')) if isinstance(mode, Update) else mode
