"""Rebuilding a database from a keyframe: from each store, and from stores that lie."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from contracts.errors import DigestMismatchError, MalformedError, ObjectMissing, StoreUnavailable
from contracts.keyframe import EMPTY_SKIPPABLE_FRAME, encode_segment
from contracts.layout import blob_key
from contracts.manifest import Blob, Database, Keyframe
from localstack import Bucket
from stores import Create, HttpStore, MemoryStore, ObjectInfo, Overwrite, Reading, Store
from stores.restore import restore_keyframe
from stores.s3 import S3Store
from tests.stores.conftest import s3_settings

SEGMENT_BYTES = 4096
# Eleven segments: two are alike, some hardly compress, the last one is short.
DATABASE = random.Random(7).randbytes(4096 * 6) + b"page" * 1024 * 4 + b"the last one"
SEGMENTS = [DATABASE[start : start + SEGMENT_BYTES] for start in range(0, len(DATABASE), SEGMENT_BYTES)]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob_of(stored: bytes) -> Blob:
    return Blob(digest(stored), len(stored))


def put_keyframe(store: Store) -> Keyframe:
    """A keyframe of `DATABASE`, its blobs in the store."""
    blobs = []
    for number, segment in enumerate(SEGMENTS):
        stored = encode_segment(segment, 3) + EMPTY_SKIPPABLE_FRAME * (number % 3)
        blobs.append(blob_of(stored))
        store.put(blob_key(blobs[-1].digest), stored, Overwrite())
    return Keyframe(Database(digest(DATABASE), len(DATABASE)), SEGMENT_BYTES, tuple(blobs))


class WatchedStore:
    """A memory store that knows which of its readings are open."""

    def __init__(self) -> None:
        self.inner = MemoryStore()
        self.opened = 0
        self.open: set[int] = set()
        self._lock = threading.Lock()

    def head(self, key: str) -> ObjectInfo:
        return self.inner.head(key)

    def get(self, key: str, start: int = 0) -> Reading:
        reading = self.inner.get(key, start)
        with self._lock:
            self.opened += 1
            number = self.opened
            self.open.add(number)
        return Reading(reading.info, self._slowly(reading), lambda: self.open.discard(number))

    def get_if_changed(self, key: str, etag: str) -> Reading | None:
        return self.inner.get_if_changed(key, etag)

    def _slowly(self, reading: Reading) -> Iterator[bytes]:
        for piece in reading:
            for start in range(0, len(piece), 1000):
                yield piece[start : start + 1000]


def test_database_comes_back_from_each_store(plain_store: Store, tmp_path: Path) -> None:
    keyframe = put_keyframe(plain_store)
    arrived: list[int] = []
    restore_keyframe(plain_store, keyframe, tmp_path / "a.db", arrived.append)
    assert (tmp_path / "a.db").read_bytes() == DATABASE
    assert keyframe.stored_bytes == sum(arrived)


def test_database_comes_back_by_plain_http(test_bucket: Bucket, tmp_path: Path) -> None:
    """On fewer connections than there are downloads at once."""
    keyframe = put_keyframe(S3Store(test_bucket.bucket, "http", s3_settings(test_bucket)))
    reader = HttpStore(f"{test_bucket.public_url}/http", connections=2)
    restore_keyframe(reader, keyframe, tmp_path / "a.db")
    reader.close()
    assert (tmp_path / "a.db").read_bytes() == DATABASE


def with_blob(keyframe: Keyframe, number: int, blob: Blob) -> Keyframe:
    blobs = list(keyframe.blobs)
    blobs[number] = blob
    return replace(keyframe, blobs=tuple(blobs))


def fails(store: WatchedStore, keyframe: Keyframe, target: Path, error: type[Exception]) -> None:
    """Restoring raises this, and lets go of everything, as long as the error itself is held on to."""
    with pytest.raises(error) as caught:
        restore_keyframe(store, keyframe, target)
    assert error is type(caught.value)
    assert store.open == set()
    target.unlink()


@pytest.mark.parametrize("number", [0, 5, len(SEGMENTS) - 1])
def test_blob_of_other_bytes_is_a_wrong_digest(number: int, tmp_path: Path) -> None:
    """Even when it decompresses to a segment of the right size."""
    store = WatchedStore()
    keyframe = put_keyframe(store.inner)
    key = blob_key(keyframe.blobs[number].digest)
    forged = encode_segment(b"\1" * len(SEGMENTS[number]))
    store.inner.put(key, forged, Overwrite())
    fails(store, keyframe, tmp_path / "a.db", DigestMismatchError)


@pytest.mark.parametrize("change", [-1, 1, 1 << 30])
def test_blob_of_another_size_than_promised_is_a_wrong_digest(change: int, tmp_path: Path) -> None:
    store = WatchedStore()
    keyframe = put_keyframe(store.inner)
    blob = keyframe.blobs[3]
    lying = with_blob(keyframe, 3, Blob(blob.digest, max(1, blob.size_bytes + change)))
    fails(store, lying, tmp_path / "a.db", DigestMismatchError)


@pytest.mark.parametrize(
    "stored",
    [
        b"not a frame",
        encode_segment(bytes(SEGMENT_BYTES + 1)),
        encode_segment(bytes(100)),
        encode_segment(b""),
    ],
    ids=["noise", "more", "less", "nothing"],
)
def test_blob_that_is_no_segment_is_malformed(stored: bytes, tmp_path: Path) -> None:
    """Under its right digest: the publisher, not the store, is wrong. Its neighbours stay out of its way."""
    store = WatchedStore()
    keyframe = with_blob(put_keyframe(store.inner), 2, blob_of(stored))
    store.inner.put(blob_key(digest(stored)), stored, Create())
    fails(store, keyframe, tmp_path / "a.db", MalformedError)


def test_missing_blob_is_named(tmp_path: Path) -> None:
    store = WatchedStore()
    keyframe = put_keyframe(store.inner)
    key = blob_key(keyframe.blobs[4].digest)
    store.inner.delete(key)
    with pytest.raises(ObjectMissing, match=key):
        restore_keyframe(store, keyframe, tmp_path / "a.db")
    assert store.open == set()


def test_database_of_another_digest_is_refused(tmp_path: Path) -> None:
    """Right blobs, put together in the wrong order."""
    store = WatchedStore()
    keyframe = put_keyframe(store.inner)
    first, second, *others = keyframe.blobs
    fails(store, replace(keyframe, blobs=(second, first, *others)), tmp_path / "a.db", DigestMismatchError)


def test_store_that_goes_away_is_unavailable(tmp_path: Path) -> None:
    class Gone(WatchedStore):
        def _slowly(self, reading: Reading) -> Iterator[bytes]:
            yield next(iter(reading))[:100]
            raise StoreUnavailable("gone")

    store = Gone()
    fails(store, put_keyframe(store.inner), tmp_path / "a.db", StoreUnavailable)


def test_observer_that_raises_stops_the_work(tmp_path: Path) -> None:
    """How SIGTERM gets out of a long download."""

    class Stop(Exception):
        pass

    def stop(size_bytes: int) -> None:
        raise Stop

    store = WatchedStore()
    keyframe = put_keyframe(store.inner)
    with pytest.raises(Stop):
        restore_keyframe(store, keyframe, tmp_path / "a.db", stop)
    assert store.open == set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("download")]


def test_file_that_is_there_already_is_not_touched(tmp_path: Path) -> None:
    target = tmp_path / "a.db"
    target.write_bytes(b"somebody's")
    store = MemoryStore()
    with pytest.raises(FileExistsError):
        restore_keyframe(store, put_keyframe(store), target)
    assert target.read_bytes() == b"somebody's"
