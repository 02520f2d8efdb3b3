"""The proxy does what the names of its faults say, seen from the client and from behind it."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest

from contracts.digests import digest_bytes
from contracts.errors import ObjectMissing, PreconditionFailed, StoreError, StoreUnavailable
from contracts.layout import POINTER_KEY, blob_key
from stores import Create, Overwrite, Store, Update
from stores.base import read_whole
from stores.retrying import Backoff, RetryingStore
from stores.s3 import S3Store
from tests.survival.fault_proxy import Fault, FaultProxy, Schedule, calm, seeded
from tests.survival.schedules import Net
from tests.survival.witness import PlainHttp

BLOB = bytes(range(256)) * 40
KEY = blob_key(digest_bytes(BLOB))


def once(fault: Fault, method: str = "PUT") -> Schedule:
    """The first request of this method is struck, no other."""
    return lambda asked, kind, number: fault if (asked, number) == (method, 0) else None


@pytest.fixture
def store(net: Net, prefix: str) -> Iterator[S3Store]:
    """A store behind the proxy that asks once."""
    net.proxy.begin(calm)
    yield net.s3_store(prefix)
    net.proxy.begin(calm)


@pytest.mark.parametrize(
    ("fault", "is_written"),
    [
        (Fault.ERROR, False),
        (Fault.UNAVAILABLE, False),
        (Fault.THROTTLED, False),
        (Fault.RESET_BEFORE, False),
        (Fault.STALL, False),
        (Fault.TRUNCATED_UPLOAD, False),
        (Fault.RESET_AFTER, True),
        (Fault.LOST_ANSWER, True),
    ],
)
def test_write_without_an_answer_has_landed_or_not(
    net: Net, store: S3Store, behind: PlainHttp, fault: Fault, is_written: bool
) -> None:
    net.proxy.begin(once(fault))
    with pytest.raises(StoreUnavailable) as caught:
        store.put(KEY, BLOB, Create())
    assert behind.read(KEY) == (BLOB if is_written else None)
    assert caught.value.retry_after_s == (1 if fault is Fault.THROTTLED else None)


def test_corrupt_upload_is_refused_by_the_server(net: Net, store: S3Store, behind: PlainHttp) -> None:
    net.proxy.begin(once(Fault.CORRUPT_UPLOAD))
    with pytest.raises(StoreError):
        store.put(KEY, BLOB, Create())
    assert behind.read(KEY) is None


def test_request_that_is_passed_on_twice_is_answered_the_second_time(net: Net, store: S3Store) -> None:
    net.proxy.begin(once(Fault.TWICE))
    with pytest.raises(PreconditionFailed):
        store.put(KEY, BLOB, Create())


def test_late_repetition_undoes_what_came_between(net: Net, store: S3Store, behind: PlainHttp) -> None:
    """It has a condition in every write of a publisher, or it would."""
    net.proxy.begin(once(Fault.LATE))
    store.put(POINTER_KEY, b"first", Overwrite())
    etag = store.head(POINTER_KEY).etag
    store.put(POINTER_KEY, b"second", Update(etag))
    net.proxy.calm_down()
    assert behind.read(POINTER_KEY) == b"first"


def test_truncated_answer_is_noticed_and_resumed(net: Net, store: S3Store) -> None:
    store.put(KEY, BLOB, Create())
    net.proxy.begin(once(Fault.TRUNCATED_ANSWER, "GET"))
    with pytest.raises(StoreUnavailable):
        read_whole(store.get(KEY), len(BLOB))
    net.proxy.begin(once(Fault.TRUNCATED_ANSWER, "GET"))
    patient: Store = RetryingStore(store, Backoff(sleep=lambda seconds: None))
    assert read_whole(patient.get(KEY), len(BLOB)) == BLOB


def test_corrupt_answer_differs_in_one_bit(net: Net, store: S3Store) -> None:
    store.put(KEY, BLOB, Create())
    net.proxy.begin(once(Fault.CORRUPT_ANSWER, "GET"))
    found = read_whole(store.get(KEY), len(BLOB))
    differing = [old ^ new for old, new in zip(BLOB, found, strict=True) if old != new]
    assert [bits.bit_count() for bits in differing] == [1]


def test_stale_read_is_an_earlier_pointer_with_its_own_entity_tag(net: Net, store: S3Store) -> None:
    net.proxy.begin(once(Fault.STALE, "GET"))
    first = store.put(POINTER_KEY, b"first", Create())
    store.put(POINTER_KEY, b"second", Update(first))
    reading = store.get(POINTER_KEY)
    assert (read_whole(reading, 100), reading.info.etag) == (b"first", first)
    assert read_whole(store.get(POINTER_KEY), 100) == b"second"


def test_stale_read_says_not_modified_to_who_has_it(net: Net, store: S3Store) -> None:
    net.proxy.begin(once(Fault.STALE, "GET"))
    first = store.put(POINTER_KEY, b"first", Create())
    store.put(POINTER_KEY, b"second", Update(first))
    assert store.get_if_changed(POINTER_KEY, first) is None
    assert store.get_if_changed(POINTER_KEY, first) is not None


def test_first_pointer_is_never_stale(net: Net, store: S3Store) -> None:
    net.proxy.begin(once(Fault.STALE, "GET"))
    store.put(POINTER_KEY, b"first", Create())
    assert read_whole(store.get(POINTER_KEY), 100) == b"first"


def test_missing_object_stays_missing(store: S3Store) -> None:
    with pytest.raises(ObjectMissing):
        store.get(KEY)


def test_same_seed_makes_the_same_schedule() -> None:
    asked = [("GET", "pointer", number) for number in range(200)]
    faults = [seeded(7, 0.3)(*request) for request in asked]
    assert faults == [seeded(7, 0.3)(*request) for request in asked]
    assert faults != [seeded(8, 0.3)(*request) for request in asked]
    assert 90 < sum(fault is not None for fault in faults) < 150  # 120 expected, of 200 at twice the rate


def test_proxy_that_ends_leaves_no_connection(net: Net) -> None:
    bucket = net.bucket
    with FaultProxy(bucket.endpoint_url) as proxy:
        client = http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=10)
        client.request("GET", f"/{bucket.bucket}/{KEY}")
        assert client.getresponse().read() is not None
    assert client.sock is not None
    assert client.sock.recv(1) == b""
    client.close()
