"""Publishing only what changed: what goes into the store, and what a lost or damaged state costs."""

from __future__ import annotations

import hashlib
import random
import shutil
import sqlite3
from collections import namedtuple
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest
from msgspec.structs import replace

from contracts.digests import digest_bytes
from contracts.errors import SourceError, StoreUnavailable, UnsupportedError
from contracts.layout import POINTER_KEY, blob_key
from contracts.manifest import Database, Manifest, format_manifest, parse_manifest
from contracts.read_model import TABLES
from contracts.route import plan_route
from music_cloud.sample import evolve
from publisher import Environment, PublishOptions, PublishResult, publish
from publisher.drift import Measure
from publisher.export import build_database
from publisher.keyframes import write_keyframe
from publisher.state import State
from stores import Backoff, MemoryStore
from stores.base import Store
from stores.progress import Progress
from stores.restore import restore_database
from tests.faults import FaultyStore

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
SMALL = PublishOptions(segment_bytes=16 << 10, level=1)


class Nas:
    """A catalogue, a state folder and a store, and publishes of the one to the other."""

    def __init__(self, catalogue: Path, folder: Path) -> None:
        self.catalogue = catalogue
        self.folder = folder
        self.store = MemoryStore()
        self.state = State(folder / "state")
        self._seeds = iter(range(1, 1000))

    def change(self, churn: Literal["hour", "day"] = "hour") -> None:
        """Let the catalogue live for an hour, or for a day."""
        evolve(self.catalogue, churn=churn, seed=next(self._seeds))

    def publish(
        self, store: Store | None = None, options: PublishOptions = SMALL, state: Path | None = None
    ) -> PublishResult:
        patient = Backoff(attempts=2, sleep=lambda seconds: None, random=random.Random(1))
        environment = Environment(now=lambda: NOW, backoff=patient)
        folder = state or self.state.folder
        return publish(self.catalogue, store or self.store, folder, options, environment=environment)

    def published(self) -> Manifest:
        """What the pointer says."""
        return parse_manifest(self.store.objects[POINTER_KEY])

    def change_until_keyframe(self) -> Iterator[PublishResult]:
        """Publish hour after hour, until a publish has made a keyframe; that one is yielded too."""
        while True:
            self.change("day")
            yield (result := self.publish())
            if result.keyframe:
                return

    def verify(self) -> None:
        """Check that what a fresh mirror gets is the catalogue, and that the promised digest is right."""
        restored, exported = self.folder / "restored.db", self.folder / "exported.db"
        for path in (restored, exported):
            path.unlink(missing_ok=True)
        manifest = self.published()
        restore_database(self.store, plan_route(manifest, None), restored)
        assert manifest.database.digest == hashlib.sha256(restored.read_bytes()).hexdigest()
        build_database(self.catalogue, exported)
        with closing(sqlite3.connect(restored)) as connection:
            connection.execute("ATTACH ? AS fresh", (str(exported),))
            for table in TABLES:
                for left, right in (("main", "fresh"), ("fresh", "main")):
                    query = f"SELECT * FROM {left}.{table} EXCEPT SELECT * FROM {right}.{table}"
                    assert connection.execute(query).fetchall() == []


@pytest.fixture
def nas(catalogue: Path, tmp_path: Path) -> Nas:
    nas = Nas(catalogue, tmp_path)
    assert nas.publish().keyframe
    return nas


def test_a_change_is_published_as_a_delta_alone(nas: Nas) -> None:
    before = nas.published()
    nas.change()
    watched = FaultyStore(nas.store)
    result = nas.publish(watched)
    manifest = nas.published()
    (delta,) = manifest.deltas
    assert (delta.base, delta.target) == (before.database, manifest.database)
    assert manifest.keyframe == before.keyframe
    assert watched.puts()[: len(delta.blobs)] == [blob_key(blob.digest) for blob in delta.blobs]
    assert len(watched.puts()) == len(delta.blobs) + 2
    assert delta.stored_bytes < manifest.keyframe.stored_bytes / 10
    assert not result.keyframe
    nas.verify()


def test_the_result_says_what_changed(nas: Nas) -> None:
    with closing(sqlite3.connect(nas.catalogue)) as connection:
        connection.execute("UPDATE songs SET name = name || '!' WHERE id IN (3, 4)")
        connection.execute(
            "INSERT INTO playlists(id, platform, remote_playlist_id, name) VALUES (999, 'qq', '9', 'new')"
        )
        connection.execute("DELETE FROM playlist_songs WHERE rowid = (SELECT max(rowid) FROM playlist_songs)")
        connection.commit()
    watched = FaultyStore(nas.store)
    result = nas.publish(watched)
    changed = {name: tuple(changes) for name, changes in result.tables.items() if any(changes)}
    assert changed["catalog_tracks"] == (0, 2, 0)
    assert changed["catalog_playlists"] == (1, 0, 0)
    assert changed["catalog_playlist_tracks"][2] == 1
    assert 3 <= result.pages <= 10
    assert result.sent_bytes == sum(len(nas.store.objects[key]) for key in watched.puts())
    assert result.sent_objects == len(watched.puts())
    assert result.full_bytes == nas.published().keyframe.stored_bytes


def test_a_dry_run_says_what_a_publish_then_does_and_touches_nothing(nas: Nas) -> None:
    nas.change()
    before, watched = dict(nas.store.objects), FaultyStore(nas.store)
    planned = nas.publish(watched, PublishOptions(segment_bytes=16 << 10, level=1, dry_run=True))
    assert planned.outcome == "planned"
    assert watched.puts() == []
    assert before == nas.store.objects
    done = nas.publish()
    for field in ("tables", "pages", "sent_bytes", "sent_objects", "full_bytes", "keyframe"):
        assert getattr(done, field) == getattr(planned, field), field
    assert done.manifest.database == planned.manifest.database


def test_a_dry_run_of_nothing_new_says_so(nas: Nas) -> None:
    assert nas.publish(options=PublishOptions(dry_run=True)).outcome == "unchanged"


def test_a_dry_run_before_the_first_publish_writes_nothing(catalogue: Path, tmp_path: Path) -> None:
    nas = Nas(catalogue, tmp_path)
    watched = FaultyStore(nas.store)
    result = nas.publish(watched, PublishOptions(dry_run=True))
    assert (result.outcome, result.keyframe) == ("planned", True)
    assert watched.puts() == []
    assert nas.publish().manifest.sequence == 1


def test_a_keyframe_follows_the_delta_in_a_manifest_of_its_own(nas: Nas) -> None:
    *_, last = nas.change_until_keyframe()
    manifest = nas.published()
    assert manifest.previous is not None
    before = parse_manifest(nas.store.objects[f"manifests/{manifest.previous}.json"])
    assert manifest.keyframe.database == manifest.database == before.database
    assert before.keyframe.database != before.database
    assert manifest.deltas == before.deltas
    assert manifest.sequence == last.manifest.sequence == before.sequence + 1
    nas.verify()


def test_a_keyframe_that_breaks_off_goes_on_after_the_next_delta(nas: Nas) -> None:
    """The delta is never kept waiting; what was sent of the keyframe is not sent again."""

    def fail(operation: str, key: str) -> None:
        puts = watched.puts()
        if operation == "put" and POINTER_KEY in puts and len(puts) > puts.index(POINTER_KEY) + 3:
            raise StoreUnavailable("the uplink is gone")

    while True:
        nas.change("day")
        watched = FaultyStore(nas.store, before=fail)
        result = nas.publish(watched)
        if result.postponed:
            break
    assert result.outcome == "published"
    assert not result.keyframe
    assert "the uplink is gone" in result.postponed
    cut_off = nas.published()
    assert result.manifest == cut_off
    waiting = nas.state.keyframe.load()
    assert waiting is not None
    assert waiting.keyframe.database == cut_off.database
    nas.change()
    watched = FaultyStore(nas.store)
    result = nas.publish(watched)
    assert result.keyframe
    manifest = nas.published()
    assert manifest.keyframe == waiting.keyframe
    assert manifest.database != cut_off.database
    puts = watched.puts()
    resumed = [puts.index(key) for blob in waiting.blobs if (key := blob_key(blob.digest)) in puts]
    assert 0 < len(resumed) < len(waiting.blobs)
    assert puts.index(POINTER_KEY) < min(resumed)
    assert nas.state.keyframe.load() is None
    nas.verify()


def test_a_keyframe_of_data_that_is_withheld_since_is_never_uploaded(nas: Nas) -> None:
    """It waits for its upload, and meanwhile the operator narrows what of the metadata is public."""

    def fail(operation: str, key: str) -> None:
        puts = watched.puts()
        if operation == "put" and POINTER_KEY in puts and len(puts) > puts.index(POINTER_KEY) + 1:
            raise StoreUnavailable("the uplink is gone")

    waiting = None
    while waiting is None:
        nas.change("day")
        watched = FaultyStore(nas.store, before=fail)
        nas.publish(watched)
        waiting = nas.state.keyframe.load()
    narrow = PublishOptions(segment_bytes=16 << 10, level=1, metadata_keys=frozenset({"duration"}))
    nas.publish(options=narrow)
    assert nas.published().keyframe.database != waiting.keyframe.database
    assert waiting != nas.state.keyframe.load()


def test_a_manifest_that_mirrors_would_refuse_is_never_published(
    catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is sent in vain. A mebibyte is some 9,700 segments: here 80 are too many."""
    monkeypatch.setattr("publisher.plan.MANIFEST_MAX_BYTES", 4000)
    nas = Nas(catalogue, tmp_path)
    with pytest.raises(UnsupportedError, match="make MUSIC_CLOUD_SEGMENT_BYTES larger"):
        nas.publish(options=PublishOptions(segment_bytes=4096, level=1))
    assert nas.store.objects == {}
    assert nas.publish().outcome == "published"


def test_a_catalogue_with_an_id_twice_is_refused_by_a_refresh_too(nas: Nas) -> None:
    """As by an export: otherwise the one row or the other would be published, in turns."""
    with closing(sqlite3.connect(nas.catalogue)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("ALTER TABLE songs RENAME TO songs_with_key")
        connection.execute("CREATE TABLE songs AS SELECT * FROM songs_with_key")
        connection.execute("INSERT INTO songs SELECT * FROM songs_with_key LIMIT 1")
        connection.commit()
    with pytest.raises(SourceError, match="songs has an id more than once"):
        nas.publish()


def test_segments_that_did_not_change_are_not_sent_again(nas: Nas) -> None:
    """A keyframe made anew, because the bucket has lost a part of the one before."""
    lost, *others = nas.published().keyframe.blobs
    del nas.store.objects[blob_key(lost.digest)]
    shutil.rmtree(nas.state.folder)
    with closing(sqlite3.connect(nas.catalogue)) as connection:
        connection.execute("UPDATE songs SET name = name || '!' WHERE id = (SELECT max(id) FROM songs)")
        connection.commit()
    result = nas.publish()
    assert result.keyframe
    assert result.present_bytes > sum(blob.size_bytes for blob in others) / 2


def test_the_state_holds_one_database_after_a_publish(nas: Nas) -> None:
    for _ in range(3):
        nas.change()
        nas.publish()
        names = {path.name for path in (nas.state.folder / "databases").iterdir()}
        assert names == {f"{nas.published().database.digest}.db"}
    assert not (nas.state.folder / "scratch").exists()
    assert not (nas.state.folder / "candidate").exists()


def test_a_lost_state_costs_a_download_and_no_keyframe(nas: Nas) -> None:
    nas.change()
    nas.publish()
    shutil.rmtree(nas.state.folder)
    nas.change()
    watched = FaultyStore(nas.store)
    result = nas.publish(watched)
    assert not result.keyframe
    assert len(nas.published().deltas) == 2
    nas.verify()


def test_an_older_state_catches_up_by_deltas(nas: Nas) -> None:
    """Two machines publish in turns, each with a state folder of its own."""
    other = nas.folder / "other"
    shutil.copytree(nas.state.folder, other)
    for _ in range(2):
        nas.change()
        nas.publish()
    nas.change()
    gets: list[str] = []
    watched = FaultyStore(nas.store, before=lambda operation, key: gets.append(f"{operation} {key}"))
    result = nas.publish(watched, state=other)
    assert not result.keyframe
    fetched = {get for get in gets if get.startswith("get blobs/")}
    deltas = nas.published().deltas  # two to catch up by, and its own, which is read back as a proof
    assert len(deltas) == 3
    assert fetched == {f"get {blob_key(blob.digest)}" for delta in deltas for blob in delta.blobs}
    nas.change()
    nas.publish()
    assert len(nas.published().deltas) == 4
    nas.verify()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "missing"])
def test_a_damaged_state_is_noticed_and_mended(nas: Nas, damage: str) -> None:
    path = nas.state.database_path(nas.published().database)
    content = path.read_bytes()
    match damage:
        case "flip":
            middle = len(content) // 2
            path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        case "cut":
            path.write_bytes(content[:-4096])
        case "empty":
            path.write_bytes(b"")
        case "missing":
            path.unlink()
    nas.change()
    result = nas.publish()
    assert not result.keyframe
    assert len(nas.published().deltas) == 1
    nas.verify()


def test_without_state_and_with_a_broken_bucket_a_keyframe_begins_a_new_chain(nas: Nas) -> None:
    nas.change()
    nas.publish()
    for blob in nas.published().keyframe.blobs:
        nas.store.objects.pop(blob_key(blob.digest), None)
    shutil.rmtree(nas.state.folder)
    nas.change()
    result = nas.publish()
    assert result.keyframe
    assert nas.published().deltas == ()
    nas.verify()


def test_a_database_of_another_version_is_rebuilt(nas: Nas) -> None:
    """Not a row of it can be kept; mirrors still get there by a delta, when that is the smaller."""
    nas.change()
    nas.publish()
    older = nas.state.database_path(nas.published().database)
    with closing(sqlite3.connect(older)) as connection:
        connection.execute("DROP INDEX catalog_track_files_by_song")
        connection.execute("VACUUM")
    _publish_by_hand(nas, older)
    result = nas.publish()
    assert result.outcome == "published"
    assert result.tables == {}
    nas.verify()


def test_rebuild_exports_anew_and_strands_nobody(nas: Nas) -> None:
    for _ in range(5):
        nas.change("day")
        nas.publish()
    before = nas.published()
    result = nas.publish(options=PublishOptions(segment_bytes=16 << 10, level=1, rebuild=True))
    manifest = nas.published()
    assert result.outcome == "published"
    assert manifest.database != before.database
    assert manifest.database.size_bytes <= before.database.size_bytes
    assert before.database in manifest.nodes
    nas.verify()


def test_rebuilding_a_fresh_export_changes_nothing(nas: Nas) -> None:
    options = PublishOptions(segment_bytes=16 << 10, level=1, rebuild=True)
    assert nas.publish(options=options).outcome == "unchanged"


def test_a_database_that_has_drifted_is_rebuilt_at_the_next_keyframe(nas: Nas) -> None:
    nas.state.store_rebuilt(Measure(size_bytes=1, rows=1000, pages=1, free_pages=0))
    *_, last = nas.change_until_keyframe()
    exported = nas.folder / "fresh.db"
    assert last.manifest.database == build_database(nas.catalogue, exported).database
    assert plan_route(last.manifest, None).stored_bytes <= 1.5 * last.manifest.keyframe.stored_bytes
    nas.verify()


def test_every_mirror_route_ends_at_the_database(nas: Nas) -> None:
    """From every node of a long chain, through keyframes that came on the way."""
    copies: dict[str, Path] = {}
    for number in range(40):
        nas.change("hour" if number % 5 else "day")
        nas.publish()
        manifest = nas.published()
        copy = nas.folder / f"copy-{number}.db"
        shutil.copy(nas.state.database_path(manifest.database), copy)
        copies[manifest.database.digest] = copy
        assert plan_route(manifest, None).stored_bytes <= 1.5 * manifest.keyframe.stored_bytes
    manifest = nas.published()
    target = nas.folder / "target.db"
    for node in manifest.nodes:
        route = plan_route(manifest, node)
        restore_database(nas.store, route, target, copies.get(node.digest))
        assert manifest.database.digest == hashlib.sha256(target.read_bytes()).hexdigest()
        target.unlink()
    nas.verify()


def test_a_full_disk_is_noticed_before_any_work(nas: Nas, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    nas.change()
    before, state = dict(nas.store.objects), sorted(nas.state.folder.rglob("*"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1 << 40, 1 << 40, 64 << 20))
    with pytest.raises(OSError, match=r"a publish needs 1 MiB and 64 MiB to spare, 64 MiB are free"):
        nas.publish()
    assert before == nas.store.objects
    assert state == sorted(nas.state.folder.rglob("*"))
    monkeypatch.undo()
    assert nas.publish().outcome == "published"
    nas.verify()


def _publish_by_hand(nas: Nas, database: Path) -> None:
    """Make this database the published one, as a publisher of another version would have."""
    content = database.read_bytes()
    described = Database(digest_bytes(content), len(content))
    blobs = nas.folder / "by-hand"
    blobs.mkdir()
    keyframe = write_keyframe(database, described, blobs, 16 << 10, 1, Progress())
    for blob in keyframe.blobs:
        nas.store.objects[blob_key(blob.digest)] = (blobs / blob.digest).read_bytes()
    manifest = replace(nas.published(), database=described, keyframe=keyframe, deltas=())
    nas.store.objects[POINTER_KEY] = format_manifest(manifest)
    database.rename(nas.state.database_path(described))
