"""A store that ignores preconditions, for an operator who swears that nobody else publishes to it.

Invariant: a condition is checked by looking first, which is right only while there is one publisher.
"""

from __future__ import annotations

from typing import BinaryIO

from contracts.errors import ObjectMissing
from stores.base import Overwrite, PutMode, verify_mode
from stores.wrapped import WrappedStore


class SinglePublisherStore(WrappedStore):
    """The store behind it, with conditions that are looked up instead of sent."""

    def put(self, key: str, body: bytes | BinaryIO, mode: PutMode) -> str:
        if not isinstance(mode, Overwrite):
            try:
                found = self._store.head(key).etag
            except ObjectMissing:
                found = None
            verify_mode(key, mode, found)
        return self._store.put(key, body, Overwrite())
