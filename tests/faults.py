"""A store with faults on demand, for the tests that have to inject one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import BinaryIO, TypeVar

from stores.base import ListedObject, ObjectInfo, PutMode, Reading, Store

T = TypeVar("T")
Hook = Callable[[str, str], None]
"""Called with an operation ("head", "get", "put", "delete", "list", "now") and its key; may raise, or kill.
"""


def ignore(operation: str, key: str) -> None:
    """The hook that does nothing."""


class FaultyStore:
    """The store behind it, with a hook before and after each operation, and a record of them."""

    def __init__(self, store: Store, *, before: Hook = ignore, after: Hook = ignore) -> None:
        self._store = store
        self.address = store.address
        self.before = before
        self.after = after
        self.operations: list[tuple[str, str]] = []

    def head(self, key: str) -> ObjectInfo:
        return self._run("head", key, lambda: self._store.head(key))

    def get(self, key: str, start: int = 0) -> Reading:
        return self._run("get", key, lambda: self._store.get(key, start))

    def get_if_changed(self, key: str, etag: str) -> Reading | None:
        return self._run("get", key, lambda: self._store.get_if_changed(key, etag))

    def put(self, key: str, body: bytes | BinaryIO, mode: PutMode) -> str:
        return self._run("put", key, lambda: self._store.put(key, body, mode))

    def delete(self, key: str) -> None:
        self._run("delete", key, lambda: self._store.delete(key))

    def list_objects(self, prefix: str = "") -> list[ListedObject]:
        return self._run("list", prefix, lambda: self._store.list_objects(prefix))

    def now(self) -> datetime | None:
        return self._run("now", "", self._store.now)

    def _run(self, operation: str, key: str, act: Callable[[], T]) -> T:
        self.operations.append((operation, key))
        self.before(operation, key)
        result = act()
        self.after(operation, key)
        return result

    def puts(self) -> list[str]:
        """The keys that were written, in order."""
        return [key for operation, key in self.operations if operation == "put"]
