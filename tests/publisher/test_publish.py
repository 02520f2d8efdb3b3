"""A publish: what is sent, in what order, and what a fault in any of it leaves behind."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from contracts.errors import (
    ClockError,
    ConflictError,
    DigestMismatchError,
    EquivocationError,
    PreconditionFailed,
    StoreUnavailable,
    UnsuitableStore,
)
from contracts.layout import POINTER_KEY, blob_key, manifest_key
from contracts.manifest import Manifest, format_manifest, parse_manifest
from music_cloud.sample import evolve
from publisher import Environment, PublishOptions, PublishResult, publish
from stores import Backoff, MemoryStore, Overwrite
from stores.base import PutMode, Store
from tests.faults import FaultyStore

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
SMALL = PublishOptions(segment_bytes=16 << 10, level=1)


def environment(now: datetime = NOW) -> Environment:
    patient = Backoff(attempts=3, sleep=lambda seconds: None, random=random.Random(1))
    return Environment(now=lambda: now, backoff=patient)


def publish_small(
    catalogue: Path, store: Store, state: Path, *, now: datetime = NOW, options: PublishOptions = SMALL
) -> PublishResult:
    return publish(catalogue, store, state, options, environment=environment(now))


def pointer(store: MemoryStore) -> Manifest:
    return parse_manifest(store.objects[POINTER_KEY])


def test_blobs_in_order_through_zstd_give_the_exact_database(catalogue: Path, tmp_path: Path) -> None:
    """Design, section 5: anyone can restore without our software."""
    if shutil.which("zstd") is None or shutil.which("sqlite3") is None:
        pytest.skip("zstd and sqlite3 from Debian's packages")
    store = MemoryStore()
    publish_small(catalogue, store, tmp_path / "state")
    manifest = pointer(store)
    assert len(manifest.keyframe.blobs) > 3
    blobs = b"".join(store.objects[blob_key(blob.digest)] for blob in manifest.keyframe.blobs)
    database = tmp_path / "restored.db"
    with database.open("wb") as target:
        subprocess.run(["zstd", "-d"], input=blobs, stdout=target, check=True)
    assert manifest.database.digest == hashlib.sha256(database.read_bytes()).hexdigest()
    answer = subprocess.run(
        ["sqlite3", database, "PRAGMA integrity_check; SELECT count(*) FROM catalog_tracks"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.split() == ["ok", str(manifest.track_count)]


def test_every_object_is_named_by_the_digest_of_its_bytes(catalogue: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    publish_small(catalogue, store, tmp_path / "state")
    for key, stored in store.objects.items():
        if key != POINTER_KEY:
            assert hashlib.sha256(stored).hexdigest() in key


def test_pointer_is_a_copy_of_the_newest_manifest_and_moves_last(catalogue: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    watched = FaultyStore(store)
    publish_small(catalogue, watched, tmp_path / "state")
    stored = store.objects[POINTER_KEY]
    key = manifest_key(hashlib.sha256(stored).hexdigest())
    assert store.objects[key] == stored
    written = [name for name in watched.puts() if not name.startswith("probe-")]
    assert written[-2:] == [key, POINTER_KEY]
    assert all(name.startswith("blobs/") for name in written[:-2])


def test_nothing_is_written_when_nothing_changed(catalogue: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    publish_small(catalogue, store, tmp_path / "state")
    watched = FaultyStore(store)
    result = publish_small(catalogue, watched, tmp_path / "state", now=NOW + timedelta(days=1))
    assert result.outcome == "unchanged"
    assert watched.puts() == []


def test_a_change_makes_the_next_link_of_the_hash_chain(catalogue: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    publish_small(catalogue, store, tmp_path / "state")
    first, stored = pointer(store), store.objects[POINTER_KEY]
    evolve(catalogue, churn="hour", seed=1)
    result = publish_small(catalogue, store, tmp_path / "state")
    second = pointer(store)
    assert result.outcome == "published"
    assert (first.sequence, second.sequence) == (1, 2)
    assert second.previous == hashlib.sha256(stored).hexdigest()
    assert second.repository == first.repository
    assert second.publish_id != first.publish_id
    assert second.oldest_kept == 1


@pytest.mark.parametrize(("days", "outcome"), [(6, "unchanged"), (7, "renewed")])
def test_renewal_comes_when_half_of_the_expiry_is_gone(
    catalogue: Path, tmp_path: Path, days: int, outcome: str
) -> None:
    """Design, section 5: 14 days of expiry, and everything but the times is copied."""
    store = MemoryStore()
    publish_small(catalogue, store, tmp_path / "state")
    first = pointer(store)
    later = NOW + timedelta(days=days)
    assert publish_small(catalogue, store, tmp_path / "state", now=later).outcome == outcome
    if outcome == "renewed":
        renewed = pointer(store)
        assert (renewed.sequence, renewed.expires_at) == (2, later + timedelta(days=14))
        assert (renewed.database, renewed.snapshot_id) == (first.database, first.snapshot_id)


def test_an_interrupted_upload_resumes_without_sending_a_blob_twice(catalogue: Path, tmp_path: Path) -> None:
    """Although the catalogue has moved on meanwhile."""
    store = MemoryStore()
    sent: list[str] = []

    def fail_after_three(operation: str, key: str) -> None:
        if operation == "put" and key.startswith("blobs/"):
            sent.append(key)
            if len(sent) == 3:
                raise StoreUnavailable("the line is dead")

    with pytest.raises(StoreUnavailable):
        publish_small(catalogue, FaultyStore(store, after=fail_after_three), tmp_path / "state")
    assert POINTER_KEY not in store.objects
    evolve(catalogue, churn="day", seed=1)
    watched = FaultyStore(store)
    result = publish_small(catalogue, watched, tmp_path / "state")
    assert result.resumed
    assert pointer(store).sequence == 2
    assert set(sent).isdisjoint(watched.puts())
    writes = [key for key in watched.puts() if key.startswith("blobs/")]
    assert len(writes) == len(set(writes))


@pytest.mark.parametrize("first", [True, False])
def test_a_swap_whose_answer_was_lost_is_recognised(catalogue: Path, tmp_path: Path, first: bool) -> None:
    """The write landed, the connection broke: neither an error nor a second snapshot."""
    store = MemoryStore()
    if not first:
        publish_small(catalogue, store, tmp_path / "state")
        evolve(catalogue, churn="hour", seed=1)

    def lose_answer(operation: str, key: str) -> None:
        if (operation, key) == ("put", POINTER_KEY):
            raise StoreUnavailable("connection reset")

    result = publish_small(catalogue, FaultyStore(store, after=lose_answer), tmp_path / "state")
    assert result.outcome == "published"
    assert pointer(store).sequence == (1 if first else 2)
    assert pointer(store).publish_id == result.manifest.publish_id


def test_a_refusal_of_our_own_landed_write_is_no_conflict(catalogue: Path, tmp_path: Path) -> None:
    """apache/hudi#14373: a proxy repeats the request, and the repetition is answered 412."""
    store = MemoryStore()

    def refuse(operation: str, key: str) -> None:
        if (operation, key) == ("put", POINTER_KEY):
            raise PreconditionFailed("412")

    result = publish_small(catalogue, FaultyStore(store, after=refuse), tmp_path / "state")
    assert result.manifest == pointer(store)


def test_a_swap_that_did_not_land_is_tried_again(catalogue: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    failures = iter([True, True])

    def fail_twice(operation: str, key: str) -> None:
        if (operation, key) == ("put", POINTER_KEY) and next(failures, False):
            raise StoreUnavailable("500")

    publish_small(catalogue, FaultyStore(store, before=fail_twice), tmp_path / "state")
    assert pointer(store).sequence == 1


def test_losing_the_swap_to_another_publisher_overwrites_nothing(catalogue: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    publish_small(catalogue, store, tmp_path / "state")
    evolve(catalogue, churn="hour", seed=1)
    other = Path(shutil.copy(catalogue, tmp_path / "other.db"))
    evolve(other, churn="hour", seed=2)

    def publish_other(operation: str, key: str) -> None:
        if (operation, key) == ("put", POINTER_KEY):
            publish_small(other, store, tmp_path / "other-state")

    with pytest.raises(ConflictError, match="another publisher published first"):
        publish_small(catalogue, FaultyStore(store, before=publish_other), tmp_path / "state")
    winner = pointer(store)
    assert winner.sequence == 2
    assert publish_small(catalogue, store, tmp_path / "state").manifest.sequence == 3
    assert pointer(store).previous == hashlib.sha256(store.objects[_manifest_of(store, winner)]).hexdigest()


def _manifest_of(store: MemoryStore, manifest: Manifest) -> str:
    for key, stored in store.objects.items():
        if key.startswith("manifests/") and parse_manifest(stored) == manifest:
            return key
    raise AssertionError("the manifest is not in the store")


class _Unconditional(MemoryStore):
    """What field-notes call "200, ignored": a store that takes every write."""

    def put(self, key: str, body: object, mode: PutMode) -> str:
        return super().put(key, body, Overwrite())  # type: ignore[arg-type]  # passed on as it came


def test_a_store_that_ignores_preconditions_is_refused(catalogue: Path, tmp_path: Path) -> None:
    store = _Unconditional()
    with pytest.raises(UnsuitableStore, match="--single-publisher"):
        publish_small(catalogue, store, tmp_path / "state")
    assert store.objects == {}


def test_a_single_publisher_may_use_such_a_store(catalogue: Path, tmp_path: Path) -> None:
    store = _Unconditional()
    options = PublishOptions(segment_bytes=16 << 10, level=1, single_publisher=True)
    publish_small(catalogue, store, tmp_path / "state", options=options)
    evolve(catalogue, churn="hour", seed=1)
    publish_small(catalogue, store, tmp_path / "state", options=options)
    assert pointer(store).sequence == 2


def test_the_probe_leaves_nothing_behind(catalogue: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    publish_small(catalogue, store, tmp_path / "state")
    assert [key for key in store.objects if key.startswith("probe")] == []


class _StoreClock(MemoryStore):
    def __init__(self, now: datetime) -> None:
        super().__init__()
        self._now = now

    def now(self) -> datetime:
        return self._now


@pytest.mark.parametrize("seconds", [-301, 301])
def test_a_clock_off_the_stores_publishes_nothing(catalogue: Path, tmp_path: Path, seconds: int) -> None:
    """Design, section 5: 5 minutes."""
    store = _StoreClock(NOW + timedelta(seconds=seconds))
    with pytest.raises(ClockError, match="set the clock"):
        publish_small(catalogue, store, tmp_path / "state")
    assert store.objects == {}
    publish_small(catalogue, _StoreClock(NOW + timedelta(seconds=299)), tmp_path / "state")


def test_a_clock_before_the_last_publish_publishes_nothing(catalogue: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    publish_small(catalogue, store, tmp_path / "state")
    before = dict(store.objects)
    evolve(catalogue, churn="hour", seed=1)
    with pytest.raises(ClockError):
        publish_small(catalogue, store, tmp_path / "state", now=NOW - timedelta(seconds=1))
    assert store.objects == before


def test_a_publish_dated_in_the_future_is_overcome_when_told_to(catalogue: Path, tmp_path: Path) -> None:
    """A NAS whose clock was wrong for a day must not stay locked out for years."""
    store = MemoryStore()
    publish_small(catalogue, store, tmp_path / "state", now=NOW + timedelta(days=3650))
    with pytest.raises(ClockError, match="--accept-clock"):
        publish_small(catalogue, store, tmp_path / "state")
    evolve(catalogue, churn="hour", seed=1)
    options = PublishOptions(segment_bytes=16 << 10, level=1, accept_clock=True)
    publish_small(catalogue, store, tmp_path / "state", options=options)
    assert pointer(store).published_at == NOW


def test_a_held_snapshot_is_only_renewed(catalogue: Path, tmp_path: Path) -> None:
    """Design, section 5: the next timer does not undo a rollback."""
    store = MemoryStore()
    publish_small(catalogue, store, tmp_path / "state")
    held = replace(pointer(store), held=True)
    store.objects[POINTER_KEY] = format_manifest(held)
    evolve(catalogue, churn="hour", seed=1)
    assert publish_small(catalogue, store, tmp_path / "state").outcome == "unchanged"
    later = NOW + timedelta(days=8)
    assert publish_small(catalogue, store, tmp_path / "state", now=later).outcome == "renewed"
    assert (pointer(store).held, pointer(store).database) == (True, held.database)


def test_a_candidate_made_with_other_metadata_keys_is_never_published(
    catalogue: Path, tmp_path: Path
) -> None:
    """Whoever stops a publish because it would show too much, and narrows the list, has not shown it."""
    store = MemoryStore()

    def fail(operation: str, key: str) -> None:
        if operation == "put" and key.startswith("manifests/"):
            raise StoreUnavailable("stopped")

    with pytest.raises(StoreUnavailable):
        publish_small(catalogue, FaultyStore(store, before=fail), tmp_path / "state")
    narrow = PublishOptions(metadata_keys=frozenset({"duration"}), segment_bytes=16 << 10, level=1)
    result = publish_small(catalogue, store, tmp_path / "state", options=narrow)
    assert not result.resumed
    assert pointer(store).sequence == 1


def test_an_emptied_store_is_not_taken_for_a_new_one(catalogue: Path, tmp_path: Path) -> None:
    """An unmounted folder looks like an empty one."""
    store = MemoryStore()
    publish_small(catalogue, store, tmp_path / "state")
    store.objects.clear()
    with pytest.raises(EquivocationError, match="delete"):
        publish_small(catalogue, store, tmp_path / "state")
    assert store.objects == {}


def test_another_repository_is_not_published_over(catalogue: Path, tmp_path: Path) -> None:
    mine, theirs = MemoryStore(), MemoryStore()
    publish_small(catalogue, mine, tmp_path / "state")
    publish_small(catalogue, theirs, tmp_path / "other-state")
    with pytest.raises(EquivocationError):
        publish_small(catalogue, theirs, tmp_path / "state")


def test_two_publishes_do_not_share_a_state_folder(catalogue: Path, tmp_path: Path) -> None:
    store = MemoryStore()

    def publish_again(operation: str, key: str) -> None:
        if (operation, key) == ("put", POINTER_KEY):
            publish_small(catalogue, store, tmp_path / "state")

    with pytest.raises(ConflictError, match="another publish is running"):
        publish_small(catalogue, FaultyStore(store, before=publish_again), tmp_path / "state")


def test_a_damaged_candidate_is_made_anew(catalogue: Path, tmp_path: Path) -> None:
    store = MemoryStore()

    def fail(operation: str, key: str) -> None:
        if operation == "put" and key.startswith("blobs/"):
            raise StoreUnavailable("the line is dead")

    with pytest.raises(StoreUnavailable):
        publish_small(catalogue, FaultyStore(store, before=fail), tmp_path / "state")
    blob = next((tmp_path / "state" / "candidate" / "blobs").iterdir())
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    result = publish_small(catalogue, store, tmp_path / "state")
    assert not result.resumed
    for digest in (blob.digest for blob in pointer(store).keyframe.blobs):
        assert hashlib.sha256(store.objects[blob_key(digest)]).hexdigest() == digest


def test_losing_the_state_folder_costs_nothing_but_an_export(catalogue: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    publish_small(catalogue, store, tmp_path / "state")
    shutil.rmtree(tmp_path / "state")
    watched = FaultyStore(store)
    assert publish_small(catalogue, watched, tmp_path / "state").outcome == "unchanged"
    assert [key for key in watched.puts() if not key.startswith("probe-")] == []


def test_a_truncated_blob_in_the_store_stops_the_publish(catalogue: Path, tmp_path: Path) -> None:
    """Its name promises other bytes, and it must not be overwritten: an operator has to look."""
    store = MemoryStore()

    def truncate(operation: str, key: str) -> None:
        if operation == "put" and key.startswith("blobs/"):
            store.objects[key] = store.objects[key][:-1]
            raise StoreUnavailable("the line is dead")

    with pytest.raises(StoreUnavailable):
        publish_small(catalogue, FaultyStore(store, after=truncate), tmp_path / "state")
    with pytest.raises(DigestMismatchError, match="delete it"):
        publish_small(catalogue, store, tmp_path / "state")
    assert POINTER_KEY not in store.objects


def test_a_failed_export_leaves_the_store_as_it_was(catalogue: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    publish_small(catalogue, store, tmp_path / "state")
    before = dict(store.objects)
    catalogue.write_bytes(b"not a database at all" * 100)
    with pytest.raises(Exception, match="not an SQLite database"):
        publish_small(catalogue, store, tmp_path / "state")
    assert store.objects == before
