"""A mirror against a bucket that is changed under it: publish, spoil, sync, and look at what is served."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from contracts.digests import digest_bytes
from contracts.errors import (
    ConflictError,
    DigestMismatchError,
    EquivocationError,
    ExpiredError,
    MalformedError,
    ObjectMissing,
    RollbackError,
    StoreError,
    StoreUnavailable,
)
from contracts.layout import POINTER_KEY, blob_key
from contracts.manifest import Manifest
from localstack import Bucket
from mirror import Mirror
from music_cloud.sample import evolve
from publisher import Environment, PublishOptions, publish
from stores import FolderStore, HttpStore, MemoryStore, RetryingReader
from stores.base import ReadableStore, Store
from stores.s3 import S3Settings, S3Store
from tests.faults import FaultyStore
from tests.mirror.chain import Chain, serves

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
SMALL = PublishOptions(segment_bytes=64 << 10, level=1)


class Site:
    """A catalogue, a bucket and a mirror of it, with a clock of their own."""

    def __init__(
        self, folder: Path, catalogue: Path, store: Store, reader: ReadableStore | None = None
    ) -> None:
        self.folder = folder
        self.catalogue = catalogue
        self.store = store
        self.now = NOW
        self.mirror = Mirror(folder / "mirror", reader or store, now=lambda: self.now, unsigned=True)

    def publish(self, seed: int = 0) -> Manifest:
        """Publish, after a change when `seed` is given."""
        if seed:
            evolve(self.catalogue, churn="hour", seed=seed)
        return publish(
            self.catalogue,
            self.store,
            self.folder / "state",
            SMALL,
            environment=Environment(lambda: self.now),
        ).manifest

    def served(self) -> str:
        """The digest of the database that a query reads."""
        with closing(self.mirror.connect()) as connection:
            (_, _, path) = connection.execute("PRAGMA database_list").fetchone()
        return digest_bytes(Path(path).read_bytes())


@pytest.fixture
def site(tmp_path: Path, catalogue: Path) -> Site:
    return Site(tmp_path, catalogue, MemoryStore())


def memory(site: Site) -> MemoryStore:
    assert isinstance(site.store, MemoryStore)
    return site.store


def newest_blob_key(manifest: Manifest) -> str:
    """The key of a blob that every way to the newest database needs."""
    part = manifest.deltas[-1] if manifest.deltas else manifest.keyframe
    return blob_key(part.blobs[0].digest)


def test_a_fresh_mirror_serves_the_published_database(site: Site) -> None:
    manifest = site.publish()
    result = site.mirror.sync()
    assert result.outcome == "updated"
    assert site.served() == manifest.database.digest
    assert result.downloaded_bytes == manifest.keyframe.stored_bytes


def test_nothing_is_downloaded_when_nothing_changed(site: Site) -> None:
    site.publish()
    site.mirror.sync()
    watched = FaultyStore(site.store)
    result = Mirror(site.folder / "mirror", watched, now=lambda: NOW, unsigned=True).sync()
    assert (result.outcome, result.downloaded_bytes) == ("unchanged", 0)
    assert watched.operations == [("get", POINTER_KEY)]


def test_a_renewal_is_followed_without_a_download(site: Site) -> None:
    site.publish()
    site.mirror.sync()
    site.now += timedelta(days=8)
    assert site.publish().sequence == 2
    result = site.mirror.sync()
    assert (result.outcome, result.downloaded_bytes, result.current.sequence) == ("renewed", 0, 2)


def test_connect_before_the_first_sync_says_so(site: Site) -> None:
    with pytest.raises(ObjectMissing):
        site.mirror.connect()


def test_a_connection_can_neither_write_nor_be_disturbed(site: Site) -> None:
    first = site.publish()
    site.mirror.sync()
    with closing(site.mirror.connect()) as connection:
        with pytest.raises(sqlite3.OperationalError):
            connection.execute("DELETE FROM catalog_tracks")
        for seed in (1, 2, 3):
            site.publish(seed)
            site.mirror.sync()
        (count,) = connection.execute("SELECT count(*) FROM catalog_tracks").fetchone()
    assert count == first.track_count


def test_two_generations_are_kept(site: Site) -> None:
    for seed in range(5):
        site.publish(seed)
        site.mirror.sync()
    kept = sorted(path.name[:8] for path in (site.folder / "mirror" / "generations").iterdir())
    assert kept == ["00000004", "00000005"]


def test_a_corrupt_blob_keeps_the_served_generation_and_heals(site: Site) -> None:
    old = site.publish()
    site.mirror.sync()
    new = site.publish(seed=1)
    key = newest_blob_key(new)
    good = memory(site).objects[key]
    memory(site).objects[key] = good[:-1] + bytes([good[-1] ^ 1])
    with pytest.raises((DigestMismatchError, MalformedError)):
        site.mirror.sync()
    assert site.served() == old.database.digest
    memory(site).objects[key] = good
    assert site.mirror.sync().outcome == "updated"
    assert site.served() == new.database.digest


def test_a_missing_blob_is_an_alarm_only_after_the_pointer_was_read_again(
    chain: Chain, watched: FaultyStore, mirror: Mirror
) -> None:
    """A blob may be pruned while a cache still serves the pointer that names it."""
    middle = chain.point(1, first=1, keyframe=1)
    newest = chain.point(2, first=2, keyframe=2)
    new_pointer = chain.store.objects[POINTER_KEY]
    for blob in {*middle.keyframe.blobs} - {*newest.keyframe.blobs}:
        del chain.store.objects[blob_key(blob.digest)]
    chain.serve(middle)

    def refresh_cache(operation: str, key: str) -> None:
        if key.startswith("blobs/"):
            chain.store.objects[POINTER_KEY] = new_pointer

    watched.before = refresh_cache
    assert mirror.sync().current.sequence == newest.sequence
    assert serves(mirror, chain.files[2])


def test_a_blob_that_stays_missing_is_an_alarm(site: Site) -> None:
    site.publish()
    old = site.mirror.sync().current
    new = site.publish(seed=1)
    del memory(site).objects[newest_blob_key(new)]
    with pytest.raises(ObjectMissing):
        site.mirror.sync()
    assert site.served() == old.database.digest


def test_a_rolled_back_pointer_is_ignored_and_a_restart_remembers(site: Site) -> None:
    site.publish()
    old_pointer = memory(site).objects[POINTER_KEY]
    new = site.publish(seed=1)
    site.mirror.sync()
    memory(site).objects[POINTER_KEY] = old_pointer
    restarted = Mirror(site.folder / "mirror", site.store, now=lambda: NOW, unsigned=True)
    assert restarted.sync().outcome == "stale"
    assert site.served() == new.database.digest


def test_what_was_believed_is_remembered_before_the_first_byte_is_fetched(site: Site) -> None:
    site.publish()
    old_pointer = memory(site).objects[POINTER_KEY]
    site.mirror.sync()
    site.publish(seed=1)

    def fail(operation: str, key: str) -> None:
        if key.startswith("blobs/"):
            raise StoreUnavailable("the line is dead")

    with pytest.raises(StoreUnavailable):
        Mirror(
            site.folder / "mirror", FaultyStore(site.store, before=fail), now=lambda: NOW, unsigned=True
        ).sync()
    memory(site).objects[POINTER_KEY] = old_pointer
    assert site.mirror.sync().outcome == "stale"


def test_another_repository_is_refused_until_trust_is_reset_by_hand(site: Site, tmp_path: Path) -> None:
    site.publish()
    site.mirror.sync()
    memory(site).objects.clear()
    shutil.rmtree(tmp_path / "state")
    site.publish(seed=1)
    with pytest.raises(EquivocationError):
        site.mirror.sync()
    site.mirror.reset_trust()
    assert site.mirror.sync().current.sequence == 1


def test_a_failing_smoke_query_keeps_the_served_generation(site: Site) -> None:
    site.publish()
    strict = Mirror(
        site.folder / "mirror",
        site.store,
        now=lambda: NOW,
        smoke_query="SELECT no_such_column FROM catalog_tracks",
        unsigned=True,
    )
    with pytest.raises(MalformedError, match="does not answer"):
        strict.sync()
    assert strict.current() is None


def test_two_syncs_of_one_folder_do_not_mix(site: Site) -> None:
    site.publish()

    def sync_again(operation: str, key: str) -> None:
        if key.startswith("blobs/"):
            site.mirror.sync()

    with pytest.raises(ConflictError):
        Mirror(
            site.folder / "mirror", FaultyStore(site.store, before=sync_again), now=lambda: NOW, unsigned=True
        ).sync()


def test_a_deleted_generation_is_fetched_again(site: Site) -> None:
    manifest = site.publish()
    site.mirror.sync()
    shutil.rmtree(site.folder / "mirror" / "generations")
    assert site.mirror.sync().outcome == "updated"
    assert site.served() == manifest.database.digest


def test_a_damaged_pointer_file_is_mended_by_the_next_sync(site: Site) -> None:
    manifest = site.publish()
    site.mirror.sync()
    (site.folder / "mirror" / "current").write_bytes(b"{")
    with pytest.raises(MalformedError, match="damaged"):
        site.mirror.connect()
    assert site.mirror.sync().outcome == "updated"
    assert site.served() == manifest.database.digest


def test_a_truncated_database_is_fetched_again(site: Site) -> None:
    manifest = site.publish()
    site.mirror.sync()
    with closing(site.mirror.connect()) as connection:
        (_, _, path) = connection.execute("PRAGMA database_list").fetchone()
    Path(path).write_bytes(Path(path).read_bytes()[:4096])
    assert site.mirror.sync().outcome == "updated"
    assert site.served() == manifest.database.digest


def test_an_unreadable_generation_is_not_called_a_missing_one(site: Site) -> None:
    site.publish()
    site.mirror.sync()
    with closing(site.mirror.connect()) as connection:
        (_, _, path) = connection.execute("PRAGMA database_list").fetchone()
    Path(path).unlink()
    with pytest.raises(MalformedError, match="cannot be read"):
        site.mirror.connect()


def test_a_clock_that_was_ahead_does_not_silence_the_rollback_alarm(site: Site) -> None:
    site.publish()
    old_pointer = memory(site).objects[POINTER_KEY]
    site.publish(seed=1)
    site.mirror.sync()
    site.now = NOW + timedelta(days=3650)
    with pytest.raises(ExpiredError):
        site.mirror.sync()
    site.now = NOW + timedelta(minutes=1)
    memory(site).objects[POINTER_KEY] = old_pointer
    assert site.mirror.sync().outcome == "stale"
    site.now += timedelta(days=2)
    with pytest.raises(RollbackError):
        site.mirror.sync()


def test_a_mirror_without_a_store_only_reads(site: Site) -> None:
    site.publish()
    site.mirror.sync()
    reader = Mirror(site.folder / "mirror")
    with closing(reader.connect()) as connection:
        assert connection.execute("SELECT count(*) > 0 FROM catalog_tracks").fetchone() == (1,)
    with pytest.raises(StoreError):
        reader.sync()


@pytest.mark.parametrize("way", ["folder", "s3", "http"])
def test_every_kind_of_store_can_be_mirrored(
    way: str, catalogue: Path, tmp_path: Path, bucket: Bucket
) -> None:
    settings = S3Settings(
        endpoint_url=bucket.endpoint_url,
        access_key_id=bucket.access_key,
        secret_access_key=bucket.secret_key,
    )
    store: Store
    reader: ReadableStore | None = None
    if way == "folder":
        store = FolderStore(tmp_path / "bucket")
    else:
        store = S3Store(bucket.bucket, "some/prefix", settings)
    if way == "http":
        reader = RetryingReader(HttpStore(f"{bucket.public_url}/some/prefix"))
    site = Site(tmp_path, catalogue, store, reader)
    site.now = datetime.now(UTC).replace(microsecond=0)
    for seed in (0, 1):
        manifest = site.publish(seed)
        assert site.mirror.sync().outcome == "updated"
        assert site.served() == manifest.database.digest
    assert site.mirror.sync().outcome == "unchanged"
