"""The proof before the pointer moves: no bad database is uploaded, and no spoilt upload is pointed to."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections import namedtuple
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from contracts.errors import (
    ContractError,
    DigestMismatchError,
    MalformedError,
    ObjectMissing,
    StoreUnavailable,
)
from contracts.layout import POINTER_KEY, blob_key
from contracts.manifest import Manifest, parse_manifest
from contracts.minisign import SecretKey
from mirror import Mirror
from music_cloud.cli import run
from music_cloud.sample import evolve
from publisher import Environment, PublishOptions, PublishResult, publish
from publisher.export import fill_database
from publisher.profile import Profile, program_version
from publisher.proof import upload as proof_upload
from publisher.refresh import refresh_database
from publisher.state import State
from stores import Backoff, MemoryStore
from stores.base import Store
from tests.faults import FaultyStore

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
SMALL = PublishOptions(segment_bytes=16 << 10, level=1)
PLACE = "/volume1/音乐"
ENCODED_PLACE = "/volume1/%E9%9F%B3%E4%B9%90"  # python3 -c 'from urllib.parse import quote; print(quote(…))'


class Nas:
    """A catalogue with its music in a Chinese folder, a state folder and a store."""

    def __init__(self, catalogue: Path, folder: Path) -> None:
        self.catalogue = catalogue
        self.folder = folder
        self.store = MemoryStore()
        self.state = State(folder / "state")
        self._seeds = iter(range(1, 1000))
        self.execute("UPDATE storage_backends SET base_path = ? WHERE name = 'nas-1'", PLACE)

    def execute(self, statement: str, *parameters: object) -> None:
        """Change the catalogue."""
        with closing(sqlite3.connect(self.catalogue)) as connection, connection:
            connection.execute(statement, parameters)

    def change(self) -> None:
        """Let the catalogue live for an hour."""
        evolve(self.catalogue, churn="hour", seed=next(self._seeds))

    def publish(
        self, store: Store | None = None, options: PublishOptions = SMALL, now: datetime = NOW
    ) -> PublishResult:
        patient = Backoff(attempts=2, sleep=lambda seconds: None, random=random.Random(1))
        environment = Environment(now=lambda: now, backoff=patient, random=random.Random(1))
        return publish(
            self.catalogue, store or self.store, self.state.folder, options, environment=environment
        )

    @property
    def pointer(self) -> bytes | None:
        return self.store.objects.get(POINTER_KEY)

    def published(self) -> Manifest:
        return parse_manifest(self.store.objects[POINTER_KEY])

    def verify_heals(self) -> None:
        """Check that the next good run publishes, and that a mirror takes what it has published."""
        assert self.publish().outcome == "published"
        mirror = Mirror(self.folder / "mirror", self.store, unsigned=True, now=lambda: NOW)
        assert mirror.sync().current.database == self.published().database


@pytest.fixture
def nas(catalogue: Path, tmp_path: Path) -> Nas:
    return Nas(catalogue, tmp_path)


def flip(stored: bytes) -> bytes:
    """One bit in the middle, as a failing disk does."""
    middle = len(stored) // 2
    return stored[:middle] + bytes([stored[middle] ^ 1]) + stored[middle + 1 :]


def replace_all(stored: bytes) -> bytes:
    """As many bytes of something else: what a lying store keeps."""
    return bytes(len(stored))


SPOILERS = {
    "flip": flip,
    "replace": replace_all,
    "cut": lambda stored: stored[:-1],
    "grow": lambda stored: stored + b"\0",
}


def spoiling(nas: Nas, prefix: str, spoil: Callable[[bytes], bytes] | None) -> FaultyStore:
    """The store, which accepts the first object of a kind and keeps something else, or (None) nothing."""
    spoilt: list[str] = []

    def after(operation: str, key: str) -> None:
        if operation == "put" and key.startswith(prefix) and not spoilt:
            spoilt.append(key)
            stored = nas.store.objects.pop(key)
            if spoil is not None:
                nas.store.objects[key] = spoil(stored)

    return FaultyStore(nas.store, after=after)


def delete_the_object_named_by(error: BaseException, nas: Nas) -> None:
    """What the sentence tells an operator to do."""
    assert "delete that object and run publish again" in str(error)
    named = [key for key in nas.store.objects if key in str(error)]
    assert len(named) == 1
    del nas.store.objects[named[0]]


@pytest.mark.parametrize(
    ("prefix", "spoil"),
    [*(("blobs/", spoil) for spoil in SPOILERS), ("manifests/", "flip"), ("manifests/", "grow")],
)
@pytest.mark.parametrize("kind", ["first publish", "delta"])
def test_store_that_keeps_other_bytes_stops_the_publish(nas: Nas, kind: str, prefix: str, spoil: str) -> None:
    if kind == "delta":
        nas.publish()
        nas.change()
    before = nas.pointer
    with pytest.raises(DigestMismatchError) as failure:
        nas.publish(spoiling(nas, prefix, SPOILERS[spoil]))
    assert nas.pointer == before
    delete_the_object_named_by(failure.value, nas)
    nas.verify_heals()


@pytest.mark.parametrize("prefix", ["blobs/", "manifests/"])
@pytest.mark.parametrize("kind", ["first publish", "delta"])
def test_store_that_loses_what_it_accepted_stops_the_publish(nas: Nas, kind: str, prefix: str) -> None:
    if kind == "delta":
        nas.publish()
        nas.change()
    before = nas.pointer
    with pytest.raises(
        ObjectMissing, match=r"nothing was published, run publish again: .* but has no object"
    ):
        nas.publish(spoiling(nas, prefix, None))
    assert nas.pointer == before
    nas.verify_heals()


def test_signature_is_read_back(nas: Nas) -> None:
    options = replace(SMALL, signing_key=SecretKey(b"A" * 8, b"A" * 32))

    def after(operation: str, key: str) -> None:
        if operation == "put" and key.endswith(".minisig"):
            nas.store.objects[key] = flip(nas.store.objects[key])

    with pytest.raises(DigestMismatchError, match=r"\.minisig in "):
        nas.publish(FaultyStore(nas.store, after=after), options)
    assert nas.pointer is None
    assert nas.publish(options=options).outcome == "published"


def test_blob_that_went_bad_since_an_interrupted_upload_is_found(nas: Nas) -> None:
    """What is there already is not sent again: it is just what could be corrupt."""

    def fail(operation: str, key: str) -> None:
        if operation == "put" and key.startswith("manifests/"):
            raise StoreUnavailable("the line is down")

    with pytest.raises(StoreUnavailable):
        nas.publish(FaultyStore(nas.store, before=fail))
    key = next(key for key in nas.store.objects if key.startswith("blobs/"))
    nas.store.objects[key] = flip(nas.store.objects[key])
    with pytest.raises(DigestMismatchError) as failure:
        nas.publish()
    assert nas.pointer is None
    assert nas.state.candidate.load() is not None, "what was made is good and waits"
    delete_the_object_named_by(failure.value, nas)
    result = nas.publish()
    assert (result.outcome, result.resumed) == ("published", True)
    assert result.sent_objects == 3  # the blob, the manifest and the pointer


Spoil = Callable[[Path], None]


def _execute(*statements: str) -> Spoil:
    def spoil(database: Path) -> None:
        with closing(sqlite3.connect(database)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    return spoil


def _corrupt_page(database: Path) -> None:
    """Overwrite the cell pointers of the page in which the tracks begin."""
    with closing(sqlite3.connect(database)) as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'catalog_tracks'"
        ).fetchone()
    with database.open("r+b") as stream:
        stream.seek((page - 1) * 4096 + 8)
        stream.write(b"\xff" * 64)


def _corrupt_index(database: Path) -> None:
    """Change a remote id where the index holds it: only a comparison with the table can tell."""
    with closing(sqlite3.connect(database)) as connection:
        (remote_id,) = connection.execute(
            "SELECT remote_song_id FROM catalog_tracks ORDER BY song_id DESC LIMIT 1"
        ).fetchone()
    content = bytearray(database.read_bytes())
    at = content.rfind(remote_id.encode() + b"")
    assert content.count(remote_id.encode()) >= 2
    content[at + len(remote_id) - 1] ^= 1
    database.write_bytes(content)


def _leave_between_rows(database: Path) -> None:
    """Leave a place where a row was: in the unallocated part of the last page that has room for it."""
    content = bytearray(database.read_bytes())
    gap = content.rfind(bytes(64))
    assert gap > 0
    content[gap + 8 : gap + 8 + len(PLACE.encode())] = PLACE.encode()
    database.write_bytes(content)


TRACK = "UPDATE catalog_tracks SET metadata_json = '{0}' WHERE song_id = 17"
BAD_DATABASES: dict[str, tuple[Spoil, str]] = {
    "a trigger": (
        _execute("CREATE TRIGGER surprise AFTER INSERT ON catalog_tracks BEGIN SELECT 1; END"),
        "foreign or changed: trigger surprise",
    ),
    "a view": (_execute("CREATE VIEW surprise AS SELECT 1"), "foreign or changed: view surprise"),
    "another application id": (_execute("PRAGMA application_id=1"), "application id 0x1"),
    "a missing index": (_execute("DROP INDEX catalog_track_files_by_song"), "missing: index"),
    "a corrupted page": (_corrupt_page, "_check: "),
    "an index that lies": (_corrupt_index, "integrity_check: "),
    "a gap between entries": (
        _execute("DELETE FROM catalog_playlist_tracks WHERE ordinal = 1"),
        "does not have its tracks in order",
    ),
    "a place in metadata": (
        _execute(TRACK.format(json.dumps({"from": f"{PLACE}/a.flac"}, ensure_ascii=False))),
        "metadata_json of song_id 17 holds the base path of storage backend 'nas-1'",
    ),
    "a place in escaped metadata": (
        _execute(TRACK.format(json.dumps({"from": f"{PLACE}/a.flac"}).replace("/", "\\/"))),
        "metadata_json of song_id 17 holds the base path of storage backend 'nas-1'",
    ),
    "a path as locator": (
        _execute(f"UPDATE catalog_track_files SET locator = '{PLACE}/a.flac' WHERE public_url IS NULL"),
        "locator of location_id .* is neither a handle nor public",
    ),
    "a path behind a handle": (
        _execute("UPDATE catalog_track_files SET locator = locator || '/../a.flac' WHERE public_url IS NULL"),
        "locator of location_id .* is neither a handle nor public",
    ),
    "a place between rows": (_leave_between_rows, "in bytes that belong to no row"),
}


@pytest.mark.parametrize("fault", BAD_DATABASES)
def test_bad_database_is_neither_uploaded_nor_kept(
    nas: Nas, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, sentence = BAD_DATABASES[fault]

    def fill_badly(source: Path, target: Path, **options: object) -> None:
        fill_database(source, target, **options)  # type: ignore[arg-type]  # passed on as they come
        spoil(target)

    monkeypatch.setattr("publisher.candidates.fill_database", fill_badly)
    with pytest.raises(MalformedError, match=sentence) as failure:
        nas.publish()
    assert "nothing was uploaded" in str(failure.value)
    assert "/volume1" not in str(failure.value)
    assert not [key for key in nas.store.objects if key.startswith(("blobs/", "manifest"))]
    assert nas.state.candidate.load() is None, "it would be tried again for ever"
    monkeypatch.undo()
    nas.verify_heals()


@pytest.mark.parametrize("fault", ["a trigger", "a corrupted page", "a place in metadata"])
def test_bad_refresh_leaves_the_pointer(nas: Nas, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nas.publish()
    before = dict(nas.store.objects)
    spoil, sentence = BAD_DATABASES[fault]

    def refresh_badly(source: Path, target: Path, **options: object) -> object:
        result = refresh_database(source, target, **options)  # type: ignore[arg-type]  # passed on as they come
        spoil(target)
        return result

    nas.change()
    monkeypatch.setattr("publisher.candidates.refresh_database", refresh_badly)
    with pytest.raises(MalformedError, match=sentence):
        nas.publish()
    assert nas.store.objects == before
    monkeypatch.undo()
    nas.verify_heals()


@pytest.mark.parametrize(
    ("base_path", "config", "metadata", "public"),
    [
        (PLACE, None, {"art": f"file://{ENCODED_PLACE}/cover.jpg", "n": 1}, {"n": 1}),
        ("/音乐", None, {"url": "https://y.example/%E9%9F%B3%E4%B9%90/12", "n": 1}, {"n": 1}),
        ("/Music Library", None, {"url": "https://y.example/Music%20Library/12", "n": 1}, {"n": 1}),
        ("D:\\music", None, {"from": "D:/music/a.flac", "n": 1}, {"n": 1}),
        (None, {"api_base": "/api/v1"}, {"url": "https://y.example/api/v1/12", "n": 1}, {"n": 1}),
        ("2024", None, {"year": 2024}, {"year": 2024}),
    ],
)
def test_honest_catalogue_is_published_without_what_the_proof_would_refuse(
    nas: Nas, base_path: str | None, config: object, metadata: object, public: object
) -> None:
    """The export leaves out just what the proof looks for, in a fresh export and in a refresh."""
    nas.publish()
    nas.execute(
        "UPDATE storage_backends SET base_path = ?, config_json = ? WHERE name = 'nas-1'",
        base_path,
        json.dumps(config),
    )
    for song_id, rebuild in ((17, False), (18, True)):
        statement = "UPDATE songs SET metadata_json = ? WHERE id = ?"
        nas.execute(statement, json.dumps(metadata, ensure_ascii=False), song_id)
        manifest = nas.publish(options=replace(SMALL, rebuild=rebuild)).manifest
        with closing(sqlite3.connect(nas.state.database_path(manifest.database))) as database:
            (found,) = database.execute(
                "SELECT metadata_json FROM catalog_tracks WHERE song_id = ?", (song_id,)
            ).fetchone()
        assert json.loads(found) == public


def test_place_that_the_catalogue_names_only_since_the_export_is_named_by_its_row(
    nas: Nas, monkeypatch: pytest.MonkeyPatch
) -> None:
    nas.execute("UPDATE songs SET metadata_json = ? WHERE id = 17", json.dumps({"from": "/volume7/x"}))

    def fill_early(source: Path, target: Path, **options: object) -> None:
        fill_database(source, target, **options)  # type: ignore[arg-type]  # passed on as they come
        nas.execute("UPDATE storage_backends SET base_path = '/volume7' WHERE name = 'nas-1'")

    monkeypatch.setattr("publisher.candidates.fill_database", fill_early)
    with pytest.raises(MalformedError, match=r"metadata_json of song_id 17 .* run publish again"):
        nas.publish()
    assert nas.pointer is None
    monkeypatch.undo()
    nas.verify_heals()


def test_place_within_what_the_catalogue_publishes_is_no_leak(nas: Nas) -> None:
    """A bucket may be laid out as the NAS is, and a song be named after a folder."""
    nas.execute("UPDATE storage_backends SET base_path = '/audio' WHERE name = 'nas-1'")
    nas.execute("UPDATE songs SET name = 'live at /audio' WHERE id = 3")
    nas.execute("UPDATE playlists SET description = 'from /audio', cover_url = 'https://x.example/audio/c'")
    with closing(sqlite3.connect(nas.catalogue)) as connection:
        (config,) = connection.execute(
            "SELECT config_json FROM storage_backends WHERE name = 'r2-public'"
        ).fetchone()
    assert "/audio/" in json.loads(config)["public_base_url"]
    assert nas.publish().outcome == "published"
    nas.change()
    nas.execute("UPDATE songs SET name = 'live at /audio/2' WHERE id = 4")
    nas.verify_heals()


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE songs SET name = '{PLACE}' WHERE id = 3",
        "UPDATE storage_backends SET base_path = '/v' WHERE name = 'r2-public'",
    ],
    ids=["a public value", "a short place"],
)
def test_nothing_else_hides_a_leak(nas: Nas, statement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nas.execute(statement)

    def fill_badly(source: Path, target: Path, **options: object) -> None:
        fill_database(source, target, **options)  # type: ignore[arg-type]  # passed on as they come
        _leave_between_rows(target)

    monkeypatch.setattr("publisher.candidates.fill_database", fill_badly)
    with pytest.raises(MalformedError, match="in bytes that belong to no row"):
        nas.publish()
    monkeypatch.undo()
    nas.verify_heals()


@pytest.mark.parametrize("base_path", [None, "", "/", "D:\\", "/m", "2024", "mp3"])
def test_base_path_that_says_nothing_stops_nobody(nas: Nas, base_path: str | None) -> None:
    nas.execute("UPDATE storage_backends SET base_path = ?", base_path)
    nas.execute("UPDATE songs SET singers = 'AC/', ext = 'mp3'")
    assert nas.publish().outcome == "published"


def test_keyframe_that_follows_is_put_off_and_the_delta_stays_live(nas: Nas) -> None:
    nas.publish()
    nas.execute("UPDATE songs SET name = hex(randomblob(55))")
    nas.publish(options=replace(SMALL, proof=False))  # the keyframe that is due follows this one
    spoilt: list[str] = []

    def after(operation: str, key: str) -> None:
        if operation == "put" and key.startswith("manifests/"):
            nas_counts.append(key)
        if operation == "put" and key.startswith("blobs/") and nas_counts and not spoilt:
            spoilt.append(key)
            nas.store.objects[key] = flip(nas.store.objects[key])

    while True:
        nas_counts: list[str] = []
        nas.execute("UPDATE songs SET name = hex(randomblob(55)) WHERE id % 2")
        result = nas.publish(FaultyStore(nas.store, after=after))
        if spoilt:
            break
    assert (result.outcome, result.keyframe) == ("published", False)
    assert result.postponed is not None
    assert spoilt[0] in result.postponed
    assert nas.published().database == result.manifest.database
    assert result.manifest.keyframe.database != result.manifest.database
    with pytest.raises(ContractError):
        nas.publish()
    del nas.store.objects[spoilt[0]]
    assert nas.publish().keyframe
    nas.change()
    nas.verify_heals()


def test_unsampled_blobs_of_a_keyframe_are_held_to_their_size(
    nas: Nas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("publisher.proof.upload._SAMPLE_BYTES", 0)
    monkeypatch.setattr("publisher.proof.upload._SAMPLE_SHARE", 0)
    operations: list[tuple[str, str]] = []
    puts: list[str] = []

    def after(operation: str, key: str) -> None:
        operations.append((operation, key))
        if operation == "put" and key.startswith("blobs/"):
            puts.append(key)

    def cut_the_second(operation: str, key: str) -> None:
        after(operation, key)
        if len(puts) == 3 and operation == "put":
            nas.store.objects[puts[1]] = nas.store.objects[puts[1]][:-1]

    with pytest.raises(DigestMismatchError, match="delete that object"):
        nas.publish(FaultyStore(nas.store, after=cut_the_second))
    del nas.store.objects[puts[1]]
    operations.clear()
    manifest = nas.publish(FaultyStore(nas.store, after=after)).manifest
    read = [key for operation, key in operations if operation == "get" and key.startswith("blobs/")]
    assert read == [blob_key(manifest.keyframe.blobs[index].digest) for index in (0, -1)]
    asked = {key for operation, key in operations if operation == "head"}
    assert asked >= {blob_key(blob.digest) for blob in manifest.keyframe.blobs}


def test_renewal_reads_back_its_manifest_and_nothing_else(nas: Nas) -> None:
    nas.publish()
    later = NOW + timedelta(days=8)
    before = nas.pointer
    with pytest.raises(DigestMismatchError, match="manifests/"):
        nas.publish(spoiling(nas, "manifests/", flip), now=later)
    assert nas.pointer == before
    watched = FaultyStore(nas.store)
    assert nas.publish(watched, now=later).outcome == "renewed"
    assert not [key for operation, key in watched.operations if key.startswith("blobs/")]


def test_without_proof_nothing_is_read_back(nas: Nas) -> None:
    watched = FaultyStore(nas.store)
    result = nas.publish(watched, replace(SMALL, proof=False))
    assert result.proof_seconds == 0
    assert {key for operation, key in watched.operations if operation == "get"} <= {POINTER_KEY} | {
        key for _, key in watched.operations if key.startswith("probe-")
    }
    nas.change()
    assert 0 < nas.publish().proof_seconds < 60


def test_full_disk_leaves_the_digests_of_the_blobs(nas: Nas, monkeypatch: pytest.MonkeyPatch) -> None:
    nas.publish()
    nas.change()
    usage = namedtuple("usage", "total used free")

    def fill_disk(operation: str, key: str) -> None:
        if operation == "put" and key.startswith("blobs/"):
            monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1 << 40, 1 << 40, 1 << 20))
        elif operation == "put" and key == POINTER_KEY:
            monkeypatch.undo()

    with pytest.raises(DigestMismatchError):
        nas.publish(FaultyStore(spoiling(nas, "blobs/", flip), before=fill_disk))
    monkeypatch.undo()
    nas.store.objects.pop(blob_key(_waiting_delta_blob(nas)))
    result = nas.publish(FaultyStore(nas.store, before=fill_disk))
    assert result.outcome == "published"
    assert result.proof_remark is not None
    assert "by the digests of its blobs alone" in result.proof_remark


def _waiting_delta_blob(nas: Nas) -> str:
    candidate = nas.state.candidate.load()
    assert candidate is not None
    assert candidate.delta is not None
    return candidate.delta.blobs[0].digest


@pytest.mark.parametrize("fate", ["gone", "damaged"])
def test_delta_whose_base_is_no_good_is_proven_by_its_digests(nas: Nas, fate: str) -> None:
    base = nas.publish().manifest.database
    nas.change()

    def lose_base(operation: str, key: str) -> None:
        path = nas.state.database_path(base)
        if operation == "put" and key.startswith("blobs/"):
            path.write_bytes(flip(path.read_bytes()))
            if fate == "gone":
                path.unlink()

    result = nas.publish(FaultyStore(nas.store, after=lose_base))
    assert result.outcome == "published"
    assert result.proof_remark is not None


def test_waiting_candidate_without_its_database_is_made_anew(nas: Nas) -> None:
    def fail(operation: str, key: str) -> None:
        if operation == "put" and key.startswith("manifests/"):
            raise StoreUnavailable("the line is down")

    with pytest.raises(StoreUnavailable):
        nas.publish(FaultyStore(nas.store, before=fail))
    candidate = nas.state.candidate.load()
    assert candidate is not None
    path = nas.state.database_path(candidate.database)
    path.write_bytes(flip(path.read_bytes()))
    result = nas.publish()
    assert (result.outcome, result.resumed) == ("published", False)


def test_command_line_proves_by_default_and_says_how_long_it_took(
    nas: Nas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    for name in ("MUSIC_CLOUD_ENV_FILE", "MUSIC_CLOUD_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    bucket = tmp_path / "桶"
    command = ["publish", "--db", str(nas.catalogue), "--store", str(bucket)]
    spoil, _ = BAD_DATABASES["a place in metadata"]

    def fill_badly(source: Path, target: Path, **options: object) -> None:
        fill_database(source, target, **options)  # type: ignore[arg-type]  # passed on as they come
        spoil(target)

    with monkeypatch.context() as spoiling_context:
        spoiling_context.setattr("publisher.candidates.fill_database", fill_badly)
        assert run(command) == 1
    printed = capsys.readouterr()
    complaints = [line for line in printed.err.splitlines() if line.startswith("music-cloud: ")]
    assert len(complaints) == 1
    assert "catalog_tracks.metadata_json of song_id 17" in complaints[0]
    assert "volume1" not in printed.err + printed.out
    assert not (bucket / "manifest.json").exists()
    assert run([*command, "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields["outcome"] == "published"
    assert 0 < fields["proof_seconds"] < fields["seconds"]
    assert fields["proof_remark"] is None
    nas.change()
    assert run(command) == 0
    assert "of them for the proof" in capsys.readouterr().out
    nas.change()
    assert run([*command, "--no-proof", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["proof_seconds"] == 0


def test_corrupt_blob_is_one_sentence_and_exit_code_1(
    nas: Nas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    for name in ("MUSIC_CLOUD_ENV_FILE", "MUSIC_CLOUD_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    # What a publish of the same catalogue has left, and a disk has spoilt since.
    whole, bucket = tmp_path / "whole", tmp_path / "桶"
    assert run(["publish", "--db", str(nas.catalogue), "--store", str(whole)]) == 0
    shutil.copytree(whole / "blobs", bucket / "blobs")
    blob = next(iter((bucket / "blobs").iterdir()))
    blob.write_bytes(flip(blob.read_bytes()))
    command = ["publish", "--db", str(nas.catalogue), "--store", str(bucket)]
    capsys.readouterr()
    assert run(command) == 1
    complaints = [line for line in capsys.readouterr().err.splitlines() if line.startswith("music-cloud: ")]
    assert len(complaints) == 1
    assert f"blobs/{blob.name}" in complaints[0]
    assert "delete that object and run publish again" in complaints[0]
    assert not (bucket / "manifest.json").exists()
    blob.unlink()
    assert run(command) == 0


@pytest.mark.parametrize("checks_sums", [None, False])
def test_store_that_takes_damaged_bytes_is_read_back_whole(
    tmp_path: Path, catalogue: Path, monkeypatch: pytest.MonkeyPatch, checks_sums: bool | None
) -> None:
    """What the doctor has found is obeyed; otherwise the first and the last blob stand for all."""
    for bound in ("_SAMPLE_BYTES", "_SAMPLE_SHARE"):
        monkeypatch.setattr(proof_upload, bound, 0)
    nas = Nas(catalogue, tmp_path)
    nas.state.folder.mkdir()
    profile = Profile(
        store=nas.store.address,
        probed_at=NOW,
        program=program_version(),
        preconditions="quoted",
        deletes=True,
        checks_sums=checks_sums,
    )
    nas.state.store_profile(profile)
    watched = FaultyStore(nas.store)
    manifest = nas.publish(watched).manifest
    blobs = [blob_key(blob.digest) for blob in manifest.keyframe.blobs]
    assert len(blobs) > 2
    read = {key for operation, key in watched.operations if operation == "get"}
    assert read.intersection(blobs) == ({blobs[0], blobs[-1]} if checks_sums is None else set(blobs))
