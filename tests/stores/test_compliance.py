"""What every store does alike: stores/base.py, sentence by sentence."""

from __future__ import annotations

import gc
import hashlib
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from io import BytesIO
from threading import Barrier

import pytest

from contracts.errors import MalformedError, ObjectMissing, PreconditionFailed, StoreUnavailable
from contracts.layout import POINTER_KEY, blob_key, manifest_key
from stores import Create, Overwrite, Store, Update
from stores.base import PIECE_BYTES, PutMode, read_whole

CONTENT = b"the first content"
BLOB = blob_key(hashlib.sha256(CONTENT).hexdigest())
THREADS = 20


def content_of(store: Store, key: str, start: int = 0) -> bytes:
    return b"".join(store.get(key, start))


def test_what_was_put_can_be_had(store: Store) -> None:
    """Whole, under its key and no other, with the entity tag that the put returned."""
    etag = store.put(BLOB, CONTENT, Create())
    reading = store.get(BLOB)
    assert (len(CONTENT), etag) == reading.info == store.head(BLOB)
    assert b"".join(reading) == CONTENT
    with pytest.raises(ObjectMissing):
        store.head(POINTER_KEY)


@pytest.mark.parametrize("ask", ["head", "get", "get_if_changed"])
def test_missing_object_is_named(store: Store, ask: str) -> None:
    calls: dict[str, Callable[[], object]] = {
        "head": lambda: store.head(BLOB),
        "get": lambda: store.get(BLOB, 5),
        "get_if_changed": lambda: store.get_if_changed(BLOB, '"0"'),
    }
    with pytest.raises(ObjectMissing) as caught:
        calls[ask]()
    assert caught.value.key == BLOB


def test_create_refuses_what_exists(store: Store) -> None:
    etag = store.put(BLOB, CONTENT, Create())
    with pytest.raises(PreconditionFailed):
        store.put(BLOB, b"other", Create())
    assert (CONTENT, etag) == (content_of(store, BLOB), store.head(BLOB).etag)


def test_create_refuses_what_exists_and_is_empty(store: Store) -> None:
    store.put(BLOB, b"", Create())
    with pytest.raises(PreconditionFailed):
        store.put(BLOB, CONTENT, Create())
    assert content_of(store, BLOB) == b""


def test_overwrite_asks_nothing(store: Store) -> None:
    store.put(POINTER_KEY, CONTENT, Overwrite())
    store.put(POINTER_KEY, b"other", Overwrite())
    assert content_of(store, POINTER_KEY) == b"other"


def test_update_follows_the_entity_tag(store: Store) -> None:
    """The tag may come from the put, the head or the get before it."""
    first = store.put(POINTER_KEY, CONTENT, Create())
    second = store.put(POINTER_KEY, b"second", Update(first))
    assert first != second
    assert second == store.head(POINTER_KEY).etag
    with closing(store.get(POINTER_KEY)) as reading:
        store.put(POINTER_KEY, b"third", Update(reading.info.etag))
    assert content_of(store, POINTER_KEY) == b"third"


@pytest.mark.parametrize("etag", ['"00000000000000000000000000000000"', "0" * 64, "", "*x"])
def test_update_with_another_entity_tag_changes_nothing(store: Store, etag: str) -> None:
    """Above all with none, which is no object's."""
    store.put(POINTER_KEY, CONTENT, Create())
    with pytest.raises(PreconditionFailed):
        store.put(POINTER_KEY, b"other", Update(etag))
    assert content_of(store, POINTER_KEY) == CONTENT


def test_update_with_an_older_entity_tag_changes_nothing(store: Store) -> None:
    first = store.put(POINTER_KEY, CONTENT, Create())
    store.put(POINTER_KEY, b"second", Update(first))
    with pytest.raises(PreconditionFailed):
        store.put(POINTER_KEY, b"third", Update(first))
    assert content_of(store, POINTER_KEY) == b"second"


@pytest.mark.parametrize("ever", [True, False], ids=["deleted", "never there"])
def test_update_of_an_absent_object_creates_nothing(store: Store, ever: bool) -> None:
    for etag in (store.put(POINTER_KEY, CONTENT, Create()) if ever else '"0"', ""):
        store.delete(POINTER_KEY)
        with pytest.raises(PreconditionFailed):
            store.put(POINTER_KEY, b"other", Update(etag))
        with pytest.raises(ObjectMissing):
            store.head(POINTER_KEY)


def test_delete_removes_one_object_and_minds_none_that_is_not_there(store: Store) -> None:
    store.delete(BLOB)
    store.put(BLOB, CONTENT, Create())
    store.put(POINTER_KEY, CONTENT, Create())
    store.delete(BLOB)
    store.delete(BLOB)
    with pytest.raises(ObjectMissing):
        store.get(BLOB)
    assert content_of(store, POINTER_KEY) == CONTENT
    store.put(BLOB, b"again", Create())


def test_listing_names_every_object_with_its_size_and_moment(store: Store) -> None:
    """Only what begins with the prefix, which need not end at a slash."""
    before = datetime.now(UTC) - timedelta(seconds=2)  # S3 dates to the second
    assert store.list_objects() == []
    sizes = {POINTER_KEY: 5, BLOB: 7, blob_key("b" * 64): 0, manifest_key("c" * 64): 70_000, "probe-1": 1}
    for key, size_bytes in sizes.items():
        store.put(key, bytes(size_bytes), Create())
    store.put(blob_key("d" * 64), b"", Create())
    store.delete(blob_key("d" * 64))
    found = store.list_objects()
    assert sizes == {listed.key: listed.size_bytes for listed in found}
    assert all(before < listed.modified <= datetime.now(UTC) + timedelta(seconds=2) for listed in found)
    blobs = {key for key in sizes if key.startswith("blobs/")}
    assert blobs == {listed.key for listed in store.list_objects("blobs/")}
    assert {BLOB} == {listed.key for listed in store.list_objects(BLOB[:20])}
    assert store.list_objects("nothing/") == []


def test_listing_is_whole_beyond_what_one_answer_holds(plain_store: Store) -> None:
    """S3 lists a thousand at a time (Amazon S3 API reference, ListObjectsV2)."""
    keys = {blob_key(f"{number:064x}") for number in range(1001)}
    with ThreadPoolExecutor(THREADS) as executor:
        list(executor.map(lambda key: plain_store.put(key, b"x", Create()), keys))
    assert keys == {listed.key for listed in plain_store.list_objects("blobs/")}


@pytest.mark.parametrize("start", [1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 199_999])
def test_reading_starts_where_it_was_asked_to(store: Store, start: int) -> None:
    """The size said is that of the whole: how else would a mirror know when it has all."""
    content = random.Random(1).randbytes(200_000)
    etag = store.put(BLOB, content, Create())
    reading = store.get(BLOB, start)
    assert (200_000, etag) == reading.info
    assert content[start:] == b"".join(reading)


def test_reading_if_changed_answers_none_only_for_the_current_entity_tag(store: Store) -> None:
    old = store.put(POINTER_KEY, CONTENT, Create())
    assert store.get_if_changed(POINTER_KEY, old) is None
    new = store.put(POINTER_KEY, b"second", Update(old))
    for etag in (old, "", '"0"'):
        reading = store.get_if_changed(POINTER_KEY, etag)
        assert reading is not None
        assert (6, new) == reading.info
        assert b"".join(reading) == b"second"


def test_empty_object_is_an_object(store: Store) -> None:
    etag = store.put(BLOB, BytesIO(), Create())
    assert (0, etag) == store.head(BLOB)
    assert content_of(store, BLOB) == b""


def test_big_object_streams_in_small_pieces(plain_store: Store) -> None:
    """5 MiB from a stream and back."""
    content = random.Random(2).randbytes(5 << 20)
    etag = plain_store.put(BLOB, BytesIO(content), Create())
    reading = plain_store.get(BLOB)
    assert (5 << 20, etag) == reading.info
    pieces = list(reading)
    assert max(map(len, pieces)) <= PIECE_BYTES
    assert content == b"".join(pieces)


def test_stream_and_bytes_make_one_object(store: Store) -> None:
    store.put(BLOB, BytesIO(CONTENT), Create())
    store.put(POINTER_KEY, CONTENT, Create())
    assert content_of(store, BLOB) == content_of(store, POINTER_KEY) == CONTENT


def test_reading_may_be_closed_at_any_time(store: Store) -> None:
    """Unread, half-read, read, and twice; what it held is let go of then, not when memory is tidied up."""
    store.put(BLOB, bytes(200_000), Create())
    for pieces_read in (0, 1, 10):
        reading = store.get(BLOB)
        for _ in zip(range(pieces_read), reading, strict=False):
            pass
        reading.close()
        reading.close()
    del reading
    gc.collect()  # an open file or socket would be a ResourceWarning now
    assert len(content_of(store, BLOB)) == 200_000


def test_object_larger_than_allowed_is_not_read(store: Store) -> None:
    store.put(BLOB, CONTENT, Create())
    assert read_whole(store.get(BLOB), len(CONTENT)) == CONTENT
    with pytest.raises(MalformedError, match=f"{len(CONTENT) - 1} are allowed"):
        read_whole(store.get(BLOB), len(CONTENT) - 1)


def test_clock_is_utc_or_nobodys(store: Store) -> None:
    now = store.now()
    assert now is None or now.utcoffset() is not None


def _race(store: Store, mode: PutMode) -> list[int]:
    """The numbers of the threads that won."""
    barrier = Barrier(THREADS)

    def run(number: int) -> bool:
        barrier.wait()
        try:
            store.put(POINTER_KEY, b"by %d" % number, mode)
        except PreconditionFailed:
            return False
        except StoreUnavailable:  # AWS answers 409 to some that lose, Ceph 500: "not now", and they ask again
            return False
        return True

    with ThreadPoolExecutor(THREADS) as executor:
        won = list(executor.map(run, range(THREADS)))
    return [number for number in range(THREADS) if won[number]]


def test_exactly_one_of_twenty_threads_creates(shared_store: Store) -> None:
    winners = _race(shared_store, Create())
    assert len(winners) == 1
    assert content_of(shared_store, POINTER_KEY) == b"by %d" % winners[0]


def test_exactly_one_of_twenty_threads_updates(shared_store: Store) -> None:
    """Two publishers on one store never overwrite each other."""
    etag = shared_store.put(POINTER_KEY, CONTENT, Create())
    winners = _race(shared_store, Update(etag))
    assert len(winners) == 1
    assert content_of(shared_store, POINTER_KEY) == b"by %d" % winners[0]


def test_twenty_threads_write_twenty_objects(shared_store: Store) -> None:
    """Writers of different objects do not get into each other's way."""
    keys = [blob_key(hashlib.sha256(b"%d" % number).hexdigest()) for number in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as executor:
        list(executor.map(lambda key: shared_store.put(key, key.encode(), Create()), keys))
    assert [key.encode() for key in keys] == [content_of(shared_store, key) for key in keys]
