"""A prune of real publishes: on a folder, on a real S3 server, by the command line, beside real mirrors."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from contracts.layout import POINTER_KEY, blob_key
from localstack import Bucket
from mirror import Mirror
from music_cloud.cli import run
from publisher import Environment, PublishOptions, publish
from publisher.history import walk_history
from publisher.pointer import fetch_pointer
from publisher.prune import PruneOptions, prune
from publisher.retention import Policy, required_keys
from stores import FolderStore, MemoryStore
from stores.base import Store
from stores.s3 import S3Settings, S3Store
from tests.faults import FaultyStore

START = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SMALL = PublishOptions(segment_bytes=16 << 10, level=1)
# As if everything had lain there for long.
AT_ONCE = Policy(keep_last=1, grace=timedelta(seconds=-60))


def rename_songs(catalogue: Path, name: str) -> None:
    """Rename them all, to something that compresses so badly that a keyframe is due."""
    with closing(sqlite3.connect(catalogue)) as connection:
        connection.create_function("digest", 1, lambda text: hashlib.sha256(text.encode()).hexdigest())
        connection.execute("UPDATE songs SET name = ? || id || ' ' || digest(? || id)", (name, name))
        connection.commit()


def songs_named(mirror: Mirror, name: str) -> int:
    with closing(mirror.connect()) as connection:
        count: int
        (count,) = connection.execute(
            "SELECT count(*) FROM catalog_tracks WHERE name LIKE ? || song_id || ' %'", (name,)
        ).fetchone()
        return count


def publish_names(catalogue: Path, store: Store, state: Path, *names: str) -> None:
    for name in names:
        rename_songs(catalogue, name)
        publish(catalogue, store, state, SMALL)


def test_a_mirror_that_meets_a_missing_blob_reads_the_pointer_again(catalogue: Path, tmp_path: Path) -> None:
    """Between the pointer and the first blob everything that it names is superseded, pruned and gone."""
    store = MemoryStore()
    publish_names(catalogue, store, tmp_path / "state", "a")
    done: list[str] = []

    def prune_meanwhile(operation: str, key: str) -> None:
        if (operation, key) == ("get", POINTER_KEY) and not done:
            done.append(key)
            publish_names(catalogue, store, tmp_path / "state", "b", "c", "d")
            prune(store, tmp_path / "state", PruneOptions(AT_ONCE))

    mirror = Mirror(tmp_path / "mirror", FaultyStore(store, after=prune_meanwhile), unsigned=True)
    assert mirror.sync().outcome == "updated"
    assert len(done) == 1
    assert songs_named(mirror, "d") == 400


def test_a_mirror_within_the_grace_and_a_fresh_one_both_sync(catalogue: Path, tmp_path: Path) -> None:
    """The stale one has what was newest five days ago, and an edge cache shows it what came next."""
    now = [START]
    store = MemoryStore(lambda: now[0])
    environment = Environment(now=lambda: now[0])
    cached = b""
    mirror = Mirror(tmp_path / "mirror", store, unsigned=True, now=lambda: now[0])
    for day in range(20):
        rename_songs(catalogue, f"day {day} ")
        publish(catalogue, store, tmp_path / "state", SMALL, environment=environment)
        if day == 14:
            mirror.sync()
        if day == 15:
            cached = store.objects[POINTER_KEY]
        now[0] += DAY
    result = prune(store, tmp_path / "state", PruneOptions(Policy(keep_last=1)), environment=environment)
    assert result.deleted

    edge = MemoryStore()
    edge.objects = {**store.objects, POINTER_KEY: cached}
    old = Mirror(tmp_path / "mirror", edge, unsigned=True, now=lambda: now[0])
    old.sync()
    assert songs_named(old, "day 15 ") == 400
    fresh = Mirror(tmp_path / "fresh", store, unsigned=True, now=lambda: now[0])
    fresh.sync()
    mirror.sync()
    assert songs_named(fresh, "day 19 ") == songs_named(mirror, "day 19 ") == 400


def is_exactly_whole(store: Store) -> bool:
    """Whether the store holds what its newest two manifests name, the list of the prune, and no more."""
    pointer = fetch_pointer(store)
    assert pointer is not None
    listed = {found.key for found in store.list_objects()}
    assert pointer.manifest.condemned is not None
    named = {POINTER_KEY, blob_key(pointer.manifest.condemned)}
    for link in walk_history(store, pointer):
        named |= {*required_keys(link.digest, link.manifest)}
    return listed == named


def test_a_folder_is_pruned(catalogue: Path, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    publish_names(catalogue, store, tmp_path / "state", "a", "b", "c")
    result = prune(store, tmp_path / "state", PruneOptions(AT_ONCE))
    assert result.deleted and not result.remaining
    assert is_exactly_whole(store)
    publish_names(catalogue, store, tmp_path / "state", "a")
    mirror = Mirror(tmp_path / "mirror", store, unsigned=True)
    mirror.sync()
    assert songs_named(mirror, "a") == 400


def test_a_bucket_is_pruned(catalogue: Path, tmp_path: Path, bucket: Bucket) -> None:
    settings = S3Settings(
        endpoint_url=bucket.endpoint_url,
        access_key_id=bucket.access_key,
        secret_access_key=bucket.secret_key,
        addressing_style="path",
    )
    store = S3Store(bucket.bucket, "site", settings)
    publish_names(catalogue, store, tmp_path / "state", "a", "b", "c")
    result = prune(store, tmp_path / "state", PruneOptions(AT_ONCE))
    assert result.deleted and not result.remaining
    assert is_exactly_whole(store)
    mirror = Mirror(tmp_path / "mirror", store, unsigned=True)
    mirror.sync()
    assert songs_named(mirror, "c") == 400


@pytest.fixture
def pruned_by_hand(catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    """A folder with three snapshots, all of whose files are a year old, and one that nobody knows."""
    monkeypatch.setenv("MUSIC_CLOUD_STATE_DIR", str(tmp_path / "states"))
    monkeypatch.delenv("MUSIC_CLOUD_ENV_FILE", raising=False)
    store = FolderStore(tmp_path / "store")
    year = timedelta(days=365)
    environment = Environment(now=lambda: datetime.now(UTC).replace(microsecond=0) - year)
    for name in "abc":
        rename_songs(catalogue, name)
        options = PublishOptions(segment_bytes=16 << 10, level=1, expiry=2 * year)
        publish(catalogue, store, tmp_path / "state", options, environment=environment)
    (store.root / "notes.txt").write_text("mine")
    then = (datetime.now(UTC) - year).timestamp()
    for path in store.root.rglob("*"):
        os.utime(path, (then, then))
    return store


def test_the_command_says_what_it_keeps_and_what_it_deletes(
    pruned_by_hand: FolderStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(pruned_by_hand.root)
    assert run(["prune", "--store", store, "--keep-last", "1", "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (planned["outcome"], planned["kept_snapshots"], planned["deleted_objects"]) == ("planned", 1, 0)
    assert planned["alien"] == ["notes.txt"]
    assert run(["prune", "--store", store, "--keep-last", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("kept: 1 snapshot, from manifest ")
    assert lines[1].startswith(f"deleted: {planned['condemned_objects']} objects, ")
    assert lines[2] == "  left alone, because it is not ours: notes.txt"
    assert run(["prune", "--store", store, "--keep-last", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == "unchanged"
    assert (pruned_by_hand.root / "notes.txt").read_text() == "mine"


def test_status_counts_from_the_publish_and_not_from_the_prune(
    pruned_by_hand: FolderStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """A year of two is gone, whatever the date of the manifest that the prune has made."""
    store = str(pruned_by_hand.root)
    assert run(["prune", "--store", store, "--keep-last", "1"]) == 0
    capsys.readouterr()
    assert run(["status", "--store", store, "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["age_s"] < 3600
    assert "half of the time" in "".join(status["remarks"])


def test_without_a_word_about_what_to_keep_the_command_keeps_ten_snapshots(
    pruned_by_hand: FolderStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["prune", "--store", str(pruned_by_hand.root), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["outcome"], result["kept_snapshots"]) == ("unchanged", 3)


def test_a_store_that_pretends_to_delete_is_a_failure_of_the_command(
    pruned_by_hand: FolderStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    delete = FolderStore.delete

    def pretend(store: FolderStore, key: str) -> None:
        if key.startswith("probe-"):  # one that does not even delete these is refused at once
            delete(store, key)

    monkeypatch.setattr(FolderStore, "delete", pretend)
    assert run(["prune", "--store", str(pruned_by_hand.root), "--keep-last", "1"]) == 1
    assert "only pretends" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [["--keep-last", "0"], ["--keep-within", "soon"], ["--grace", "0d"]])
def test_a_policy_that_makes_no_sense_is_wrong_usage(bad: list[str], tmp_path: Path) -> None:
    assert run(["prune", "--store", str(tmp_path), *bad]) == 2
