"""How slowly an object may come to a mirror, all retries together.

Invariant: each object comes at a thousand bytes a second or more in the end, or there is an error, whatever
the other side does: send a byte now and then, or break off after each and be asked for the rest. Only time
spent waiting for bytes counts, not what is done with them. A single answer that drips is ended sooner, by its
store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from contracts.errors import StoreUnavailable
from stores.base import ObjectInfo, ReadableStore, Reading
from stores.pace import is_too_slow

# Waits of a retrying store count too, and it may have been asked for five minutes by a Retry-After.
_PATIENCE_S = 600.0

Monotonic = Callable[[], float]
"""A clock in seconds that never goes back."""


class PacedReader:
    """A readable store, each of whose objects comes at a fair pace in the end: also after retries."""

    def __init__(self, store: ReadableStore, monotonic: Monotonic, patience_s: float = _PATIENCE_S) -> None:
        self._store = store
        self._monotonic = monotonic
        self._patience_s = patience_s

    def head(self, key: str) -> ObjectInfo:
        return self._store.head(key)

    def get(self, key: str, start: int = 0) -> Reading:
        return self._paced(self._store.get(key, start), key)

    def get_if_changed(self, key: str, etag: str) -> Reading | None:
        reading = self._store.get_if_changed(key, etag)
        return reading and self._paced(reading, key)

    def _paced(self, reading: Reading, key: str) -> Reading:
        return Reading(reading.info, self._pieces(reading, key), reading.close)

    def _pieces(self, reading: Reading, key: str) -> Iterator[bytes]:
        pieces = iter(reading)
        received_bytes, waited_s = 0, 0.0
        while True:
            asked_s = self._monotonic()
            piece = next(pieces, None)
            if piece is None:
                return
            waited_s += self._monotonic() - asked_s
            received_bytes += len(piece)
            if is_too_slow(received_bytes, waited_s, self._patience_s):
                raise StoreUnavailable(f"{key} came too slowly: {received_bytes} bytes in {waited_s:.0f} s")
            yield piece
