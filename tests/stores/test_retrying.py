"""Patience: what is asked again, how often, how long apart; with a sleep that only writes itself down."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import datetime
from io import BytesIO
from typing import BinaryIO

import pytest

from contracts.errors import (
    AccessDenied,
    MalformedError,
    ObjectMissing,
    PreconditionFailed,
    StoreError,
    StoreUnavailable,
)
from contracts.layout import POINTER_KEY, blob_key
from stores import Backoff, Create, MemoryStore, ObjectInfo, Overwrite, Reading, RetryingStore, Update
from stores.base import PutMode
from tests.stores.conftest import no_sleep

BLOB = blob_key("0" * 64)
CONTENT = random.Random(4).randbytes(500_000)  # eight pieces
DOWN = StoreUnavailable("down")


class FaultyStore(MemoryStore):
    """Fails as it is told to, call by call; its readings break after as many pieces as they are told to."""

    def __init__(self, *failures: Exception | None, breaks: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.objects[BLOB] = CONTENT
        self.failures = list(failures)
        self.breaks = list(breaks)
        self.calls: list[str] = []
        self.closed = 0

    def _call(self, what: str) -> None:
        self.calls.append(what)
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure

    def head(self, key: str) -> ObjectInfo:
        self._call("head")
        return super().head(key)

    def get(self, key: str, start: int = 0) -> Reading:
        self._call(f"get from {start}")
        reading = super().get(key, start)
        return Reading(reading.info, self._breaking(reading), self._count_closed)

    def get_if_changed(self, key: str, etag: str) -> Reading | None:
        reading = self.get(key)
        if reading.info.etag != etag:
            return reading
        reading.close()
        return None

    def put(self, key: str, body: bytes | BinaryIO, mode: PutMode) -> str:
        content = body if isinstance(body, bytes) else body.read()  # also when it then fails
        self._call("put")
        return super().put(key, content, mode)

    def delete(self, key: str) -> None:
        self._call("delete")
        super().delete(key)

    def now(self) -> datetime | None:
        self._call("now")
        return None

    def _breaking(self, reading: Reading) -> Iterator[bytes]:
        pieces_left = self.breaks.pop(0) if self.breaks else -1
        for piece in reading:
            if pieces_left == 0:
                raise StoreUnavailable("reset")
            pieces_left -= 1
            yield piece
        if pieces_left == 0:
            raise StoreUnavailable("reset after the last byte")

    def _count_closed(self) -> None:
        self.closed += 1


class Clock:
    """A sleep that takes no time."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def backoff(self, attempts: int = 6) -> Backoff:
        return Backoff(attempts, sleep=self.slept.append, random=random.Random(5))


CALLS: dict[str, Callable[[RetryingStore], object]] = {
    "head": lambda store: store.head(BLOB),
    "get from 0": lambda store: store.get(BLOB),
    "get if changed": lambda store: store.get_if_changed(BLOB, ""),
    "create": lambda store: store.put(POINTER_KEY, CONTENT, Create()),
    "overwrite": lambda store: store.put(POINTER_KEY, CONTENT, Overwrite()),
    "delete": lambda store: store.delete(BLOB),
    "now": lambda store: store.now(),
}


@pytest.mark.parametrize("call", CALLS)
def test_store_that_comes_back_in_time_is_not_noticed(call: str) -> None:
    clock = Clock()
    faulty = FaultyStore(DOWN, DOWN)
    CALLS[call](RetryingStore(faulty, clock.backoff()))
    assert len(faulty.calls) == 3
    assert len(clock.slept) == 2


@pytest.mark.parametrize("call", CALLS)
def test_store_that_stays_away_is_given_up_after_the_last_attempt(call: str) -> None:
    """With its own last words, not those of the retrying library."""
    clock = Clock()
    last = StoreUnavailable("the last words")
    faulty = FaultyStore(DOWN, DOWN, last)
    with pytest.raises(StoreUnavailable) as caught:
        CALLS[call](RetryingStore(faulty, clock.backoff(attempts=3)))
    assert last is caught.value
    assert len(faulty.calls) == 3
    assert len(clock.slept) == 2


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "error",
    [
        ObjectMissing(BLOB),
        AccessDenied("no"),
        PreconditionFailed("no"),
        StoreError("full"),
        MalformedError("no"),
        KeyError("a mistake in the program"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_other_error_is_raised_at_once(call: str, error: Exception) -> None:
    faulty = FaultyStore(error)
    with pytest.raises(type(error)) as caught:
        CALLS[call](RetryingStore(faulty, Backoff(sleep=no_sleep)))
    assert error is caught.value
    assert len(faulty.calls) == 1


def test_update_is_never_retried() -> None:
    """After a lost answer only the caller can tell whether it was his own write that landed."""
    faulty = FaultyStore(DOWN)
    with pytest.raises(StoreUnavailable):
        RetryingStore(faulty, Backoff(sleep=no_sleep)).put(BLOB, b"new", Update("x"))
    assert faulty.calls == ["put"]


def test_stream_is_rewound_for_each_attempt() -> None:
    """Else the second attempt would store what was left of it: nothing."""
    faulty = FaultyStore(DOWN, DOWN)
    RetryingStore(faulty, Clock().backoff()).put(POINTER_KEY, BytesIO(CONTENT), Create())
    assert faulty.objects[POINTER_KEY] == CONTENT


def test_pauses_double_up_to_the_longest_and_are_jittered() -> None:
    """Between half of the doubled time and all of it, so that many mirrors do not come back at once."""
    backoff = Backoff(first_s=0.5, longest_s=30.0, random=random.Random(6))
    for attempt, longest in enumerate([0.5, 1, 2, 4, 8, 16, 30, 30, 30], 1):
        delays = [backoff.delay_s(attempt) for _ in range(50)]
        assert longest / 2 <= min(delays) < max(delays) <= longest
    assert backoff.delay_s(2000) <= 30.0


@pytest.mark.parametrize(
    ("asked_s", "expected"), [(7.0, 7.0), (300.0, 300.0), (1e9, 300.0), (float("inf"), 300.0)]
)
def test_pause_that_the_store_asks_for_is_kept_within_reason(asked_s: float, expected: float) -> None:
    """An hour's Retry-After is an outage, which the next run finds over."""
    clock = Clock()
    RetryingStore(FaultyStore(StoreUnavailable("busy", asked_s)), clock.backoff()).head(BLOB)
    assert [expected] == clock.slept


def test_pause_is_never_shorter_than_our_own() -> None:
    clock = Clock()
    RetryingStore(FaultyStore(StoreUnavailable("busy", 0.0)), clock.backoff()).head(BLOB)
    assert 0.25 <= clock.slept[0] <= 0.5


def test_reading_goes_on_where_it_broke_as_often_as_it_gets_on() -> None:
    """Any number of breaks, without a pause, while each brings at least one piece."""
    faulty = FaultyStore(breaks=(3, 1, 1, 2))
    store = RetryingStore(faulty, Backoff(attempts=2, sleep=no_sleep))
    assert b"".join(store.get(BLOB)) == CONTENT
    places = [0, 3, 4, 5, 7]
    assert [f"get from {place * 65536}" for place in places] == faulty.calls
    assert faulty.closed >= 5


def test_reading_from_the_middle_goes_on_from_there() -> None:
    faulty = FaultyStore(breaks=(1,))
    store = RetryingStore(faulty, Backoff(sleep=no_sleep))
    assert CONTENT[100:] == b"".join(store.get(BLOB, 100))
    assert faulty.calls == ["get from 100", f"get from {100 + 65536}"]


def test_pointer_that_changed_is_resumed_too() -> None:
    faulty = FaultyStore(breaks=(1,))
    reading = RetryingStore(faulty, Backoff(sleep=no_sleep)).get_if_changed(BLOB, "older")
    assert reading is not None
    assert b"".join(reading) == CONTENT
    assert RetryingStore(faulty).get_if_changed(BLOB, faulty.head(BLOB).etag) is None


def test_break_after_the_last_byte_is_no_break() -> None:
    faulty = FaultyStore(breaks=(8,))
    assert b"".join(RetryingStore(faulty, Backoff(sleep=no_sleep)).get(BLOB)) == CONTENT
    assert faulty.calls == ["get from 0"]


def test_reading_that_never_gets_on_is_given_up() -> None:
    """A bounded number of reopenings, each after a longer pause; progress starts the count anew."""
    clock = Clock()
    faulty = FaultyStore(breaks=(0, 0, 1, 0, 0, 0, 0, 0))
    with pytest.raises(StoreUnavailable, match="reset"):
        b"".join(RetryingStore(faulty, clock.backoff(attempts=3)).get(BLOB))
    assert faulty.calls == ["get from 0"] * 3 + ["get from 65536"] * 3
    assert len(clock.slept) == 4
    assert len(faulty.calls) <= faulty.closed


def test_reading_of_a_store_that_stays_away_is_given_up() -> None:
    """The reopening is retried like any other call, and no more than that."""
    clock = Clock()
    faulty = FaultyStore(None, *[DOWN] * 10, breaks=(2,))
    with pytest.raises(StoreUnavailable, match="down"):
        b"".join(RetryingStore(faulty, clock.backoff(attempts=3)).get(BLOB))
    assert len(faulty.calls) == 4


@pytest.mark.parametrize("other", [CONTENT[::-1], CONTENT + b"x"], ids=["content", "size"])
def test_object_that_changed_between_two_readings_is_not_mixed(other: bytes) -> None:
    faulty = FaultyStore(breaks=(2,))
    pieces = iter(RetryingStore(faulty, Backoff(sleep=no_sleep)).get(BLOB))
    assert CONTENT[:65536] == next(pieces)
    faulty.objects[BLOB] = other
    with pytest.raises(StoreUnavailable, match="changed while it was read"):
        b"".join(pieces)


def test_object_that_is_gone_between_two_readings_is_missing() -> None:
    faulty = FaultyStore(breaks=(2,))
    pieces = iter(RetryingStore(faulty, Backoff(sleep=no_sleep)).get(BLOB))
    next(pieces)
    del faulty.objects[BLOB]
    with pytest.raises(ObjectMissing):
        b"".join(pieces)


@pytest.mark.parametrize("pieces_read", [0, 1])
def test_closing_lets_go_of_the_reading_behind(pieces_read: int) -> None:
    """Also of one that was never begun, whose generator has run no line yet."""
    faulty = FaultyStore()
    reading = RetryingStore(faulty).get(BLOB)
    for _ in zip(range(pieces_read), reading, strict=False):
        pass
    reading.close()
    assert faulty.closed >= 1
