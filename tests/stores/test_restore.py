"""Rebuilding a database from a keyframe and from deltas: from each store, and from stores that lie."""

from __future__ import annotations

import hashlib
import random
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec.structs import replace

from contracts.errors import DigestMismatchError, MalformedError, ObjectMissing, StoreUnavailable
from contracts.keyframe import EMPTY_SKIPPABLE_FRAME, encode_segment
from contracts.layout import blob_key
from contracts.manifest import Blob, Database, Delta, Keyframe
from contracts.page_delta_encoder import QUICK, encode_batch
from contracts.read_model import PAGE_BYTES
from contracts.route import Route
from localstack import Bucket
from stores import (
    Create,
    HttpStore,
    MemoryStore,
    ObjectInfo,
    Overwrite,
    ReadableStore,
    Reading,
    Store,
    restore,
)
from stores.restore import DELTAS_AT_ONCE, restore_database
from stores.s3 import S3Store
from tests.contracts.page_delta_databases import blob_of as delta_blob
from tests.contracts.page_delta_databases import database as pages
from tests.contracts.page_delta_databases import encode
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


def restore_keyframe(
    store: ReadableStore, keyframe: Keyframe, target: Path, report: Callable[[int], None] = restore.ignore
) -> None:
    restore_database(store, Route(keyframe, (), keyframe.database), target, report=report)


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


# Editions of the pages of six databases, each the base of the next: they grow and shrink, and the last is the
# first again.
EDITIONS = [[1] * 9, [1, 2] + [1] * 7, [1, 2] * 6, [3] * 4, [3] * 20, [1] * 9]
NODES = [pages(*editions) for editions in EDITIONS]


def database_of(content: bytes) -> Database:
    return Database(digest(content), len(content))


def put_delta(store: Store, base: bytes, target: bytes, blobs: list[bytes]) -> Delta:
    for stored in blobs:
        store.put(blob_key(digest(stored)), stored, Overwrite())
    return Delta(database_of(base), database_of(target), tuple(blob_of(stored) for stored in blobs))


def put_chain(store: Store, nodes: list[bytes] = NODES) -> tuple[Delta, ...]:
    return tuple(
        put_delta(store, base, target, encode(base, target, batch_pages=2))
        for base, target in pairwise(nodes)
    )


def hold(tmp_path: Path, content: bytes = NODES[0]) -> Path:
    held = tmp_path / "held.db"
    held.write_bytes(content)
    return held


def route_of(deltas: tuple[Delta, ...]) -> Route:
    return Route(None, deltas, deltas[-1].target)


@pytest.mark.parametrize("start", range(len(NODES)))
def test_deltas_lead_from_what_is_held_to_the_last(start: int, tmp_path: Path) -> None:
    """What is held stays as it is."""
    store = WatchedStore()
    deltas = put_chain(store.inner)[start:]
    held = hold(tmp_path, NODES[start])
    arrived: list[int] = []
    route = Route(None, deltas, database_of(NODES[-1]))
    restore_database(store, route, tmp_path / "a.db", held, arrived.append)
    assert NODES[-1] == (tmp_path / "a.db").read_bytes()
    assert NODES[start] == held.read_bytes()
    assert route.stored_bytes == sum(arrived)
    assert store.open == set()


def test_deltas_lead_from_the_keyframe_to_the_last(plain_store: Store, tmp_path: Path) -> None:
    deltas = put_chain(plain_store)
    stored = encode_segment(NODES[2])
    plain_store.put(blob_key(digest(stored)), stored, Overwrite())
    keyframe = Keyframe(database_of(NODES[2]), 1 << 20, (blob_of(stored),))
    restore_database(plain_store, Route(keyframe, deltas[2:], database_of(NODES[-1])), tmp_path / "a.db")
    assert NODES[-1] == (tmp_path / "a.db").read_bytes()


def test_route_from_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none is held"):
        restore_database(MemoryStore(), Route(None, (), database_of(NODES[0])), tmp_path / "a.db")


def test_delta_that_makes_another_database_is_a_wrong_digest(tmp_path: Path) -> None:
    """Every blob is what its name says, and applies."""
    store = MemoryStore()
    lying = put_delta(store, NODES[0], NODES[1], encode(NODES[0], pages(5, *EDITIONS[0][1:])))
    with pytest.raises(DigestMismatchError, match=r"a\.db"):
        restore_database(store, route_of((lying,)), tmp_path / "a.db", hold(tmp_path))


@pytest.mark.parametrize("page", [1, 5], ids=["that the delta holds", "that it does not"])
def test_held_file_that_is_damaged_is_the_one_to_blame(page: int, tmp_path: Path) -> None:
    store = MemoryStore()
    deltas = put_chain(store)[:1]
    damaged = bytearray(NODES[0])
    damaged[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = bytes(PAGE_BYTES)
    with pytest.raises(DigestMismatchError, match=r"held\.db"):
        restore_database(store, route_of(deltas), tmp_path / "a.db", hold(tmp_path, bytes(damaged)))


@pytest.mark.parametrize("ahead_bytes", [restore.AHEAD_BYTES, 1], ids=["ahead", "as it arrives"])
@pytest.mark.parametrize("spoil", ["other bytes", "missing", "shorter", "longer"])
def test_broken_blob_of_a_delta_ends_the_work(
    spoil: str, ahead_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was fetched before its turn or is applied while it arrives; nothing is left open."""
    monkeypatch.setattr(restore, "AHEAD_BYTES", ahead_bytes)
    store = WatchedStore()
    deltas = put_chain(store.inner)
    key = blob_key(deltas[3].blobs[0].digest)
    good = store.inner.objects[key]
    if spoil == "missing":
        store.inner.delete(key)
    else:
        broken = {"other bytes": good[:-1] + b"?", "shorter": good[:-1], "longer": good + b"?"}[spoil]
        store.inner.objects[key] = broken
    with pytest.raises((ObjectMissing, DigestMismatchError, MalformedError)) as caught:
        restore_database(store, route_of(deltas), tmp_path / "a.db", hold(tmp_path))
    assert (spoil == "missing") == isinstance(caught.value, ObjectMissing)
    assert store.open == set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("download")]


def test_blobs_of_deltas_are_fetched_ahead_of_their_turn(tmp_path: Path) -> None:
    """Each answer waits until as many are asked for at once: one after the other would never end."""

    class Waiting(WatchedStore):
        together = threading.Barrier(DELTAS_AT_ONCE, timeout=30)

        def get(self, key: str, start: int = 0) -> Reading:
            self.together.wait()
            return super().get(key, start)

    store = Waiting()
    nodes = [pages(*[1] * 8, edition) for edition in range(2 * DELTAS_AT_ONCE + 1)]
    deltas = put_chain(store.inner, nodes)
    restore_database(store, route_of(deltas), tmp_path / "a.db", hold(tmp_path, nodes[0]))
    assert nodes[-1] == (tmp_path / "a.db").read_bytes()


def test_memory_does_not_grow_with_what_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blobs wait for their turn within a bound; one that is larger than it is applied as it arrives."""
    monkeypatch.setattr(restore, "AHEAD_BYTES", 1 << 20)
    store = MemoryStore()
    dice = random.Random(1)
    nodes = [dice.randbytes(64 * PAGE_BYTES) for _ in range(41)]
    deltas = [
        put_delta(store, old, new, [delta_blob(encode_batch(range(64), old, new, QUICK))])
        for old, new in pairwise(nodes)
    ]
    large = nodes[-1] + dice.randbytes(512 * PAGE_BYTES)
    deltas.append(put_delta(store, nodes[-1], large, encode(nodes[-1], large, batch_pages=64)))
    route = route_of(tuple(deltas))
    assert max(blob.size_bytes for delta in deltas for blob in delta.blobs) > restore.AHEAD_BYTES
    held = hold(tmp_path, nodes[0])
    tracemalloc.start()
    try:
        restore_database(store, route, tmp_path / "a.db", held)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert large == (tmp_path / "a.db").read_bytes()
    assert peak_bytes < 4 << 20 < route.stored_bytes / 3
