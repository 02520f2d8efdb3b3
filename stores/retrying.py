"""A store that asks again when the store behind it did not answer.

Invariant: only `StoreUnavailable` is retried; an update never is, because after a lost answer nobody but the
caller can tell whether it was his own write that landed. A reading that breaks goes on where it broke, as
long as the object is still the same.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import BinaryIO, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from contracts.errors import StoreUnavailable
from stores.base import ListedObject, ObjectInfo, PutMode, ReadableStore, Reading, Store, Update

T = TypeVar("T")
_ASKED_MAX_S = 300.0  # a Retry-After beyond this is an outage, which the next run finds over


@dataclass(frozen=True)
class Backoff:
    """How long to go on: attempts, and seconds between them, doubling from `first_s` to `longest_s`."""

    attempts: int = 6
    first_s: float = 0.5
    longest_s: float = 30.0
    sleep: Callable[[float], None] = time.sleep
    random: random.Random = field(default_factory=random.Random)

    def delay_s(self, attempt: int, asked_s: float | None = None) -> float:
        """Seconds to wait after the nth failure: jittered, so that many mirrors do not come back at once;
        never less than the store asked for, within reason."""
        longest = min(self.longest_s, self.first_s * 2.0 ** min(attempt - 1, 64))  # a float ends at 2^1024
        return max(self.random.uniform(longest / 2, longest), min(asked_s or 0.0, _ASKED_MAX_S))

    def call(self, function: Callable[[], T]) -> T:
        """The function's result. Raises: what it raises, StoreUnavailable only after the last attempt."""
        retrying = Retrying(
            retry=retry_if_exception_type(StoreUnavailable),
            stop=stop_after_attempt(self.attempts),
            wait=self._wait,
            sleep=self.sleep,
            reraise=True,
        )
        return retrying(function)

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked_s = error.retry_after_s if isinstance(error, StoreUnavailable) else None
        return self.delay_s(state.attempt_number, asked_s)


class RetryingReader:
    """A readable store, patiently."""

    def __init__(self, store: ReadableStore, backoff: Backoff | None = None) -> None:
        self._store = store
        self._backoff = backoff or Backoff()

    def head(self, key: str) -> ObjectInfo:
        return self._backoff.call(lambda: self._store.head(key))

    def get(self, key: str, start: int = 0) -> Reading:
        reading = self._backoff.call(lambda: self._store.get(key, start))
        return Reading(reading.info, self._resumed(key, reading, start), reading.close)

    def get_if_changed(self, key: str, etag: str) -> Reading | None:
        reading = self._backoff.call(lambda: self._store.get_if_changed(key, etag))
        return reading and Reading(reading.info, self._resumed(key, reading, 0), reading.close)

    def _resumed(self, key: str, reading: Reading, start: int) -> Iterator[bytes]:
        """The pieces of a reading, opened again after each break that follows some progress."""
        info = reading.info
        fruitless = 0
        while True:
            before = start
            try:
                for piece in reading:
                    start += len(piece)
                    yield piece
                return
            except StoreUnavailable as error:
                if start >= info.size_bytes:
                    return  # the connection broke after the last byte
                fruitless = fruitless + 1 if start == before else 0
                if fruitless == self._backoff.attempts:
                    raise
                if fruitless:
                    self._backoff.sleep(self._backoff.delay_s(fruitless, error.retry_after_s))
            finally:
                reading.close()
            reading = self._backoff.call(partial(self._store.get, key, start))
            if reading.info != info:
                reading.close()
                raise StoreUnavailable(f"{key} changed while it was read")


class RetryingStore(RetryingReader):
    """A store, patiently; see the module for what is not retried."""

    _store: Store

    def __init__(self, store: Store, backoff: Backoff | None = None) -> None:
        super().__init__(store, backoff)
        self.address = store.address

    def put(self, key: str, body: bytes | BinaryIO, mode: PutMode) -> str:
        if isinstance(mode, Update):
            return self._store.put(key, body, mode)

        def attempt() -> str:
            if not isinstance(body, bytes):
                body.seek(0)
            return self._store.put(key, body, mode)

        return self._backoff.call(attempt)

    def delete(self, key: str) -> None:
        self._backoff.call(lambda: self._store.delete(key))

    def list_objects(self, prefix: str = "") -> list[ListedObject]:
        return self._backoff.call(lambda: self._store.list_objects(prefix))

    def now(self) -> datetime | None:
        return self._backoff.call(self._store.now)
