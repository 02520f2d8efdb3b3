"""Rollback and going on after it: what is served, what is sent, and what a crash leaves."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from contracts.errors import (
    ConflictError,
    HistoryError,
    SignatureError,
    SnapshotError,
    StoreUnavailable,
)
from contracts.layout import POINTER_KEY, Kind, blob_key, format_key, manifest_key
from contracts.manifest import Database, Manifest, SnapshotManifest
from contracts.minisign import SecretKey, parse_signature, verify_signature
from contracts.route import plan_route
from localstack import Bucket
from mirror import Mirror
from stores import FolderStore
from stores.base import Store
from stores.restore import restore_database
from stores.s3 import S3Settings, S3Store
from tests.faults import FaultyStore
from tests.publisher.past import Past

KEY, OTHER = (SecretKey(letter * 8, letter * 32) for letter in (b"A", b"B"))
_MOST_OPERATIONS = 200  # only ends a test that never would


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Past:
    """Snapshots 1 to 4."""
    past = Past(tmp_path_factory.mktemp("lived"))
    past.publish()
    past.live(3)
    return past


@pytest.fixture
def past(lived: Past, tmp_path: Path) -> Past:
    return lived.copy(tmp_path / "past")


def mirror_of(past: Past, name: str = "mirror", store: Store | None = None) -> Mirror:
    return Mirror(past.folder / name, store or past.store, unsigned=True, now=lambda: past.now)


def verify_served(past: Past, database: Database, *mirrors: Mirror) -> None:
    """Check that a fresh mirror, these, and whoever takes the keyframe get this database to the byte."""
    for mirror in (mirror_of(past, f"fresh-{past.published().sequence}"), *mirrors):
        mirror.sync()
        current = mirror.current()
        assert current is not None
        assert current.database == database
    restored = past.folder / "restored.db"
    restore_database(past.store, plan_route(past.published(), None), restored)
    assert hashlib.sha256(restored.read_bytes()).hexdigest() == database.digest
    restored.unlink()


def test_an_earlier_database_is_published_as_a_new_snapshot_and_held(past: Past) -> None:
    """Design, section 5: as a new sequence, with a delta from the pointer's database, and held."""
    before = past.pointer()
    earlier = past.links()[2].manifest
    result = past.roll_back(2)
    after = past.published()
    assert (result.outcome, after.sequence, after.previous) == ("published", 5, before.digest)
    assert (after.database, after.held) == (past.databases[1], True)
    assert (after.deltas[-1].base, after.deltas[-1].target) == (past.databases[3], past.databases[1])
    for field in SnapshotManifest.__struct_fields__:
        assert getattr(after, field) == getattr(earlier, field)
    assert after.published_at == past.now
    assert result.held_since == past.now
    verify_served(past, past.databases[1])


def test_a_mirror_downloads_the_delta_alone(past: Past) -> None:
    mirror = mirror_of(past)
    mirror.sync()
    past.roll_back(1)
    result = mirror.sync()
    assert result.downloaded_bytes == past.published().deltas[-1].stored_bytes
    assert result.current.database == past.databases[0]
    assert result.fallback is None


@pytest.mark.parametrize("name", ["sequence", "snapshot id", "digest"])
def test_the_snapshot_is_named_in_any_of_three_ways(past: Past, name: str) -> None:
    link = past.links()[2]
    manifest = link.manifest
    names = {"sequence": str(manifest.sequence), "snapshot id": manifest.snapshot_id, "digest": link.digest}
    past.roll_back(names[name])
    assert past.published().database == manifest.database


def test_later_publishes_change_nothing_and_say_since_when(past: Past) -> None:
    """So that the next timer does not undo it."""
    past.roll_back(2)
    since, held = past.now, past.published()
    result = past.live()
    assert (result.outcome, result.held_since) == ("unchanged", since)
    assert past.published() == held
    past.now += timedelta(days=8)
    result = past.publish()
    assert (result.outcome, result.held_since) == ("renewed", since)
    assert past.published().held
    verify_served(past, past.databases[1])


def test_resume_publishes_the_catalogue_by_a_delta_again(past: Past) -> None:
    past.roll_back(2)
    mirror = mirror_of(past)
    mirror.sync()
    result = past.live(resume=True)
    assert (result.outcome, result.held_since, past.published().held) == ("published", None, False)
    assert past.published().deltas[-1].base == past.databases[1]
    verify_served(past, result.manifest.database, mirror)
    assert past.live().outcome == "published"


def test_resume_lets_go_also_when_the_catalogue_is_what_is_held(past: Past) -> None:
    catalogue = past.folder / "earlier.db"
    shutil.copy(past.catalogue, catalogue)
    past.live()
    past.roll_back(4)
    shutil.copy(catalogue, past.catalogue)  # its owner has put it back as well
    held = past.published()
    result = past.publish(resume=True)
    after = past.published()
    assert (result.outcome, after.held, after.sequence) == ("renewed", False, held.sequence + 1)
    assert (after.database, after.deltas) == (held.database, held.deltas)
    assert past.publish().outcome == "unchanged"


def test_resume_without_a_rollback_is_a_publish(past: Past) -> None:
    assert past.publish(resume=True).outcome == "unchanged"
    assert past.live(resume=True).outcome == "published"


def test_a_rollback_goes_on_from_a_rollback(past: Past) -> None:
    past.roll_back(3)
    past.roll_back(1)
    assert (past.published().database, past.published().held) == (past.databases[0], True)
    past.roll_back(4)
    assert past.published().database == past.databases[3]
    verify_served(past, past.databases[3])


def test_the_same_rollback_again_changes_nothing(past: Past) -> None:
    """Whoever did not see the first one end may repeat it."""
    past.roll_back(2)
    stored = past.objects[POINTER_KEY]
    assert past.roll_back(2).outcome == "unchanged"
    assert past.roll_back(5).outcome == "unchanged"
    assert past.objects[POINTER_KEY] == stored


def test_a_rollback_to_what_is_published_is_refused_in_a_sentence(past: Past) -> None:
    stored = past.objects[POINTER_KEY]
    with pytest.raises(SnapshotError, match="snapshot 4 has the database that is published now"):
        past.roll_back(4)
    assert past.objects[POINTER_KEY] == stored


def test_an_unknown_snapshot_is_answered_with_what_is_there(past: Past) -> None:
    with pytest.raises(SnapshotError, match="no snapshot '9'; the store has 1 to 4"):
        past.roll_back(9)


def test_an_empty_store_has_nothing_to_go_back_to(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="nothing was ever published"):
        Past(tmp_path).roll_back(1)


def test_a_snapshot_beyond_a_broken_link_is_not_guessed(past: Past) -> None:
    del past.objects[manifest_key(past.links()[1].digest)]
    with pytest.raises(HistoryError):
        past.roll_back(1)


def test_a_snapshot_that_cannot_be_restored_leaves_everything_as_it_was(past: Past) -> None:
    earlier = past.links()[3].manifest
    del past.objects[blob_key(earlier.keyframe.blobs[0].digest)]
    stored = past.objects[POINTER_KEY]
    with pytest.raises(SnapshotError, match="snapshot 1 cannot be restored"):
        past.roll_back(1)
    assert past.objects[POINTER_KEY] == stored
    assert past.publish().outcome == "unchanged"


def test_what_is_published_may_be_broken_when_there_is_something_to_go_back_to(past: Past) -> None:
    """A lost delta and a lost state: what is gone back to then comes as a keyframe."""
    broken = past.published()
    del past.objects[blob_key(broken.deltas[-1].blobs[0].digest)]
    shutil.rmtree(past.state)
    result = past.roll_back(2)
    assert result.keyframe
    assert past.published().deltas == ()
    verify_served(past, past.databases[1])


def test_the_state_folder_may_be_lost(past: Past) -> None:
    shutil.rmtree(past.state)
    past.roll_back(2)
    assert past.published().deltas[-1].target == past.databases[1]
    verify_served(past, past.databases[1])


def test_a_dry_run_sends_nothing_and_keeps_nothing(past: Past) -> None:
    watched = FaultyStore(past.memory)
    result = past.roll_back(2, watched, dry_run=True)
    assert (result.outcome, result.manifest.database) == ("planned", past.databases[1])
    assert result.sent_bytes > 0
    assert watched.puts() == []
    assert past.live().outcome == "published"
    assert not past.published().held


def test_two_rollbacks_at_once_do_not_overwrite_each_other(past: Past) -> None:
    def publish_meanwhile(operation: str, key: str) -> None:
        if (operation, key) == ("put", POINTER_KEY):
            watched.before = lambda operation, key: None
            other = past.copy(past.folder.parent / "other")
            other.memory = past.memory
            other.store = past.memory
            shutil.rmtree(other.state)  # another machine
            other.live()

    watched = FaultyStore(past.memory, before=publish_meanwhile)
    with pytest.raises(ConflictError, match="another publisher published first"):
        past.roll_back(2, watched)
    assert not past.published().held


class Died(Exception):
    """The process is gone."""


def deaths(past: Past, folder: Path) -> Iterator[tuple[int, Past, bool]]:
    """The same past again and again, in which a rollback to 2 died before its nth operation, or just after
    the swap; and whether it did."""
    for die_at in range(1, _MOST_OPERATIONS):
        again = past.copy(folder / f"{die_at}")
        done = 0

        def count(operation: str, key: str, die_at: int = die_at) -> None:
            nonlocal done
            done += 1
            if done == die_at:
                raise Died

        def count_swap(operation: str, key: str) -> None:
            if (operation, key) == ("put", POINTER_KEY):
                count(operation, key)  # of this very round

        try:
            again.roll_back(2, FaultyStore(again.memory, before=count, after=count_swap))
        except Died:
            yield die_at, again, True
        else:
            yield die_at, again, False
            return
    pytest.fail("a rollback never came to an end")


@pytest.mark.parametrize("then", ["rollback", "publish", "other rollback", "resume"])
def test_a_rollback_that_died_at_any_operation_is_finished_or_given_up(
    past: Past, tmp_path: Path, then: str
) -> None:
    """The next rollback or publish finishes it, as its operator wanted; another rollback or `--resume`
    gives it up. After the death, mirrors get the snapshot before or the one after."""
    died = 0
    for _, again, has_died in deaths(past, tmp_path):
        died += has_died
        mirror = mirror_of(again)
        assert mirror.sync().current.database in (again.databases[1], again.databases[3])
        was_swapped = again.published().held
        was_ready = (again.state / "candidate" / "plan.json").exists()
        if then == "rollback":
            again.roll_back(2)
            wanted, held = again.databases[1], True
        elif then == "publish":
            again.publish()
            held = was_swapped or was_ready
            wanted = again.databases[1] if held else again.databases[3]
        elif then == "other rollback":
            again.roll_back(1)
            wanted, held = again.databases[0], True
        else:
            again.publish(resume=True)
            wanted, held = again.databases[3], False
            if not was_swapped:
                assert again.published().sequence == 4, "a rollback that was given up was published"
        assert again.published().database.size_bytes == wanted.size_bytes
        assert again.published().held == held
        if then != "resume":  # a refresh may arrange the same rows in other pages
            verify_served(again, wanted, mirror)
        if then == "publish":
            again.live(resume=True)
            verify_served(again, again.published().database, mirror)
            assert not again.published().held
    assert died > 8, "too few operations for a rollback"


def signed_past(past: Past) -> Past:
    """The past of a publisher with a key: its newest two snapshots are signed, and so is what comes."""
    for link in past.links()[:2]:
        past.objects[format_key(Kind.SIGNATURE, link.digest)] = KEY.sign(link.stored, "x")
    return past


def test_a_rollback_is_signed_as_a_publish_is(past: Past) -> None:
    signed_past(past).roll_back(3, signing_key=KEY)
    pointer = past.pointer()
    signature = past.objects[format_key(Kind.SIGNATURE, pointer.digest)]
    verify_signature(past.objects[POINTER_KEY], parse_signature(signature), KEY.public)
    mirror = Mirror(past.folder / "m", past.store, public_keys=[KEY.public], now=lambda: past.now)
    assert mirror.sync().current.database == past.databases[2]


@pytest.mark.parametrize("signer", [None, OTHER])
def test_a_snapshot_that_a_known_key_has_not_signed_is_not_vouched_for(
    past: Past, signer: SecretKey | None
) -> None:
    """Whoever can write to the store could have put it into the chain; a rollback would sign it."""
    link = past.links()[2]
    if signer is not None:
        past.objects[format_key(Kind.SIGNATURE, link.digest)] = signer.sign(link.stored, "x")
    stored = past.objects[POINTER_KEY]
    with pytest.raises(SignatureError, match="snapshot 2 is"):
        past.roll_back(2, signing_key=KEY)
    assert past.objects[POINTER_KEY] == stored


def test_a_snapshot_of_an_earlier_key_is_taken_when_that_key_is_named(past: Past) -> None:
    link = past.links()[2]
    past.objects[format_key(Kind.SIGNATURE, link.digest)] = OTHER.sign(link.stored, "x")
    past.roll_back(2, signing_key=KEY, trusted=[OTHER.public])
    assert past.published().database == past.databases[1]


def test_a_candidate_of_the_catalogue_is_not_published_by_a_rollback(past: Past) -> None:
    """What a publish left ready when it lost its line is given up: the rollback says what is wanted."""

    def fail(operation: str, key: str) -> None:
        if operation == "put":
            raise StoreUnavailable("no line")

    with pytest.raises(StoreUnavailable):
        past.live(store=FaultyStore(past.memory, before=fail))
    past.roll_back(2)
    assert (past.published().sequence, past.published().database) == (5, past.databases[1])


def open_folder(folder: Path) -> Store:
    return FolderStore(folder / "bucket")


def round_trip(past: Past) -> list[Manifest]:
    """Publish twice, roll back, be held, go on; what was published after each."""
    seen = []
    past.publish()
    past.live()
    past.roll_back(1)
    seen.append(past.published())
    past.live()
    seen.append(past.published())
    past.live(resume=True)
    seen.append(past.published())
    return seen


def verify_round_trip(past: Past) -> None:
    back, held, resumed = round_trip(past)
    assert (back.held, back.database, back.sequence) == (True, past.databases[0], 3)
    assert held == back
    assert (resumed.held, resumed.sequence) == (False, 4)
    verify_served(past, resumed.database)


def test_a_round_trip_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    past = Past(tmp_path / "nas", open_folder(tmp_path))
    verify_round_trip(past)


def test_a_round_trip_on_a_real_s3_server(tmp_path: Path, bucket: Bucket) -> None:
    settings = S3Settings(
        endpoint_url=bucket.endpoint_url,
        access_key_id=bucket.access_key,
        secret_access_key=bucket.secret_key,
    )
    past = Past(tmp_path, S3Store(bucket.bucket, "site", settings))
    past.now, past.step = past.store.now() or past.now, timedelta()
    verify_round_trip(past)
