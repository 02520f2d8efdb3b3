"""The exported files: the same bytes for the same rows, nothing in them but the rows, the old ones before."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import SourceError, UnsuitableStore
from contracts.manifest import SnapshotManifest
from contracts.read_model import verify_schema
from music_cloud.sample import SECRET_MARKER
from music_cloud.sample import create_catalogue as create_sample
from publisher import export as export_module
from publisher.export import build_database, export_snapshot, forbid_remains
from tests.publisher import create_catalogue, export, read

NOW = datetime(2026, 11, 22, 8, 30, tzinfo=UTC)
TABLES = "catalog_playlists catalog_tracks catalog_playlist_tracks catalog_track_files catalog_toplists"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue with everything awkward in it."""
    path = tmp_path_factory.mktemp("sample") / "catalogue.db"
    create_sample(path, songs=3000)
    return path


def changed(source: Path, target: Path, *statements: str) -> Path:
    """A copy of a catalogue after these statements."""
    shutil.copy(source, target)
    with closing(sqlite3.connect(target, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
    return target


# The manifest


def test_manifest_counts_what_the_database_holds(tmp_path: Path, sample: Path) -> None:
    snapshot = export_snapshot(sample, tmp_path, now=NOW)
    database = tmp_path / "catalog_read.db"
    counted = [
        read(database, f"SELECT count(*) FROM {table}")[0][0]
        for table in (
            "catalog_playlists",
            "catalog_tracks",
            "catalog_track_files",
            "catalog_playlists WHERE cover_url IS NOT NULL AND cover_url <> ''",
        )
    ]
    digest = sha256(database.read_bytes()).hexdigest()
    assert snapshot == SnapshotManifest(
        f"snap-playlists-{counted[0]}-tracks-{counted[1]}-{digest[:12]}",
        "2026-11-22T08:30:00Z",
        1,
        *counted,
    )
    assert snapshot == SnapshotManifest.from_dict(json.loads((tmp_path / "manifest.json").read_bytes()))
    assert min(counted) > 0


def test_moment_is_written_in_utc(tmp_path: Path, sample: Path) -> None:
    now = datetime(2026, 11, 22, 16, 30, tzinfo=timezone(timedelta(hours=8)))
    assert export_snapshot(sample, tmp_path, now=now).generated_at == "2026-11-22T08:30:00Z"


def test_other_content_has_another_snapshot_id(tmp_path: Path) -> None:
    """With the same counts, only the digest tells two catalogues apart."""
    first = create_catalogue(tmp_path / "1.db", {"songs": [{"id": 1, "name": "a"}]})
    second = create_catalogue(tmp_path / "2.db", {"songs": [{"id": 1, "name": "b"}]})
    ids = {export_snapshot(source, tmp_path / "out").snapshot_id for source in (first, second)}
    assert len(ids) == 2
    assert all(snapshot_id.startswith("snap-playlists-0-tracks-1-") for snapshot_id in ids)


def test_catalogue_without_rows_is_exported(tmp_path: Path) -> None:
    snapshot = export_snapshot(create_catalogue(tmp_path / "c.db", {}), tmp_path / "out")
    assert (snapshot.playlist_count, snapshot.track_count, snapshot.file_count) == (0, 0, 0)


# The same bytes


def test_two_exports_are_byte_identical(tmp_path: Path, sample: Path) -> None:
    for name in ("1", "2"):
        export_snapshot(sample, tmp_path / name, now=NOW)
    for name in ("catalog_read.db", "manifest.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


@pytest.mark.parametrize(
    "statements",
    [
        # Rowids of tables without a key are renumbered; design, section 4.
        ("DELETE FROM playlist_songs WHERE rowid < 3", "VACUUM"),
        ("DROP INDEX playlist_songs_by_playlist", "VACUUM"),
        ("PRAGMA journal_mode=DELETE", "PRAGMA page_size=1024", "VACUUM"),
        (
            "CREATE TABLE reversed AS SELECT * FROM playlist_songs ORDER BY rowid DESC",
            "DROP TABLE playlist_songs",
            "ALTER TABLE reversed RENAME TO playlist_songs",
        ),
        (
            "CREATE INDEX i ON file_assets(song_id)",
            "CREATE INDEX j ON file_locations(file_asset_id)",
            "ANALYZE",
        ),
    ],
    ids=["vacuumed", "without-index", "other-pages", "other-order", "analyzed"],
)
def test_how_the_source_is_stored_decides_nothing(
    tmp_path: Path, sample: Path, statements: tuple[str, ...]
) -> None:
    first = statements[0] if statements[0].startswith("DELETE FROM") else "SELECT 1"
    plain = export(changed(sample, tmp_path / "plain.db", first)).read_bytes()
    stored_otherwise = export(changed(sample, tmp_path / "other.db", *statements)).read_bytes()
    assert sha256(plain).digest() == sha256(stored_otherwise).digest()


def test_toplists_do_not_depend_on_the_order_of_pool_members(tmp_path: Path, sample: Path) -> None:
    reordered = changed(
        sample,
        tmp_path / "other.db",
        "CREATE TABLE reversed AS SELECT * FROM pool_playlists ORDER BY rowid DESC",
        "DROP TABLE pool_playlists",
        "ALTER TABLE reversed RENAME TO pool_playlists",
    )
    plain = export(changed(sample, tmp_path / "plain.db")).read_bytes()
    assert plain == export(reordered).read_bytes()


@pytest.mark.parametrize("step", [1, -1])
def test_order_in_which_parts_are_filled_decides_nothing(
    tmp_path: Path, sample: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """One after the other, the first or the last part first, or at once: the threads' timing is luck."""
    at_once = export(changed(sample, tmp_path / "plain.db")).read_bytes()

    def run_in_order(*tasks: Callable[[], None], connections: Sequence[sqlite3.Connection]) -> None:
        for task in tasks[::step]:
            task()

    monkeypatch.setattr(export_module, "run_together", run_in_order)
    assert at_once == export(changed(sample, tmp_path / "plain.db")).read_bytes()


# Nothing but the rows


def test_private_text_is_nowhere_in_the_file(tmp_path: Path, sample: Path) -> None:
    """The raw bytes are searched: free pages and slack count as published."""
    export_snapshot(sample, tmp_path)
    content = (tmp_path / "catalog_read.db").read_bytes()
    assert SECRET_MARKER.encode() in sample.read_bytes()
    assert [
        marker for marker in (SECRET_MARKER, "/volume1/music", "music-private") if marker.encode() in content
    ] == []


def test_rows_deleted_from_the_source_are_nowhere_in_the_file(tmp_path: Path) -> None:
    songs = [{"id": n, "name": f"DELETED-{n}" if n % 2 else "kept"} for n in range(1, 300)]
    source = create_catalogue(tmp_path / "c.db", {"songs": songs})
    with closing(sqlite3.connect(source, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete=OFF")
        connection.execute("DELETE FROM songs WHERE name <> 'kept'")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"DELETED-" in source.read_bytes()
    assert b"DELETED-" not in export(source).read_bytes()


def test_rows_deleted_by_a_writing_connection_are_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        forbid_remains(connection)
        connection.execute("CREATE TABLE t(x)")
        connection.execute("INSERT INTO t VALUES ('MARKER')")
        connection.execute("DELETE FROM t")
    assert b"MARKER" not in path.read_bytes()


def test_build_of_sqlite_that_keeps_deleted_rows_is_refused() -> None:
    class Disobedient(sqlite3.Connection):
        def execute(self, *_: Any) -> sqlite3.Cursor:
            return super().execute("SELECT 0")

    connection = sqlite3.connect(":memory:", factory=Disobedient)
    with closing(connection), pytest.raises(SourceError, match="secure_delete"):
        forbid_remains(connection)


# A database that others can use


def test_schema_is_the_read_model_and_no_journal_is_needed(tmp_path: Path, sample: Path) -> None:
    export_snapshot(sample, tmp_path)
    uri = f"{(tmp_path / 'catalog_read.db').as_uri()}?immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        verify_schema(connection)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("PRAGMA freelist_count").fetchone() == (0,)


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="needs the sqlite3 command")
def test_sqlite3_command_finds_the_database_whole(tmp_path: Path, sample: Path) -> None:
    export_snapshot(sample, tmp_path)
    command = ["sqlite3", "-readonly", str(tmp_path / "catalog_read.db"), "PRAGMA integrity_check"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"ok\n"


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("SELECT * FROM catalog_playlist_tracks WHERE playlist_id = 1 ORDER BY ordinal", "PRIMARY KEY"),
        ("SELECT * FROM catalog_track_files WHERE song_id = 1", "catalog_track_files_by_song"),
        (
            "SELECT * FROM catalog_tracks WHERE platform = 'qq' AND remote_song_id = '1'",
            "catalog_tracks_by_remote_id",
        ),
    ],
)
def test_public_queries_search_by_index_and_sort_nothing(
    tmp_path: Path, sample: Path, query: str, index: str
) -> None:
    export_snapshot(sample, tmp_path)
    ((*_, plan),) = read(tmp_path / "catalog_read.db", f"EXPLAIN QUERY PLAN {query}")
    assert plan.startswith("SEARCH")
    assert index in plan


# The previous export


def test_export_replaces_the_previous_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for count in (1, 2):
        songs = [{"id": n} for n in range(count)]
        export_snapshot(create_catalogue(tmp_path / f"{count}.db", {"songs": songs}), out)
    assert read(out / "catalog_read.db", "SELECT count(*) FROM catalog_tracks") == [(2,)]
    assert json.loads((out / "manifest.json").read_bytes())["track_count"] == 2
    assert sorted(path.name for path in out.iterdir()) == ["catalog_read.db", "manifest.json"]


def test_folder_of_the_target_is_made(tmp_path: Path, sample: Path) -> None:
    export_snapshot(str(sample), str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b" / "catalog_read.db").is_file()


def test_catalogue_is_never_replaced_by_its_own_export(tmp_path: Path) -> None:
    source = create_catalogue(tmp_path / "catalog_read.db", {"songs": [{"id": 1}]})
    before = source.read_bytes()
    with pytest.raises(SourceError, match="would replace the catalogue itself"):
        export_snapshot(source, tmp_path)
    assert before == source.read_bytes()


def failing_disk(monkeypatch: pytest.MonkeyPatch, pages: int) -> None:
    """SQLite reports a full disk when a database would grow beyond this many pages."""
    configure: Callable[[sqlite3.Connection], None] = export_module._configure

    def bounded(connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")
        configure(connection)

    monkeypatch.setattr(export_module, "_configure", bounded)


@pytest.mark.parametrize("pages", [1, 20, 200])
def test_full_disk_leaves_the_previous_export(
    tmp_path: Path, sample: Path, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    """Full from the start, and after a while."""
    out = tmp_path / "out"
    export_snapshot(create_catalogue(tmp_path / "c.db", {"songs": [{"id": 1}]}), out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    failing_disk(monkeypatch, pages)
    with pytest.raises(OSError, match="the disk is full"):
        export_snapshot(sample, out)
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_disk_that_really_is_full_leaves_the_previous_export(
    tmp_path: Path, sample: Path, small_disk: Path, journal_mode: str
) -> None:
    out = small_disk / "out"
    export_snapshot(create_catalogue(tmp_path / "c.db", {"songs": [{"id": 1}]}), out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    source = changed(sample, tmp_path / "large.db", f"PRAGMA journal_mode={journal_mode}")
    with pytest.raises(OSError, match="the disk is full"):
        export_snapshot(source, out)
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}


def test_database_is_on_disk_when_build_returns(tmp_path: Path, sample: Path) -> None:
    """And it is where it was asked for, with nothing beside it."""
    build = build_database(sample, tmp_path / "x.db", now=NOW)
    content = (tmp_path / "x.db").read_bytes()
    assert (build.database.digest, build.database.size_bytes) == (sha256(content).hexdigest(), len(content))
    assert [path.name for path in tmp_path.iterdir()] == ["x.db"]


def test_a_store_is_no_target(tmp_path: Path) -> None:
    """Both have a manifest.json, and only a publish may move that of a store."""
    (tmp_path / "store" / "blobs").mkdir(parents=True)
    (tmp_path / "store" / "manifest.json").write_bytes(b"the pointer")
    with pytest.raises(UnsuitableStore, match="published to"):
        export_snapshot(tmp_path / "catalogsync.db", tmp_path / "store")
    assert (tmp_path / "store" / "manifest.json").read_bytes() == b"the pointer"
