"""A source that cannot be exported costs one clear sentence, and nothing that was there before."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from contracts.errors import SourceError
from publisher.export import build_database, export_snapshot
from tests.publisher import SCHEMA, create_catalogue, insert, read

SONGS = {"songs": [{"id": n, "name": f"歌 {n}", "singers": "x" * 200} for n in range(1, 400)]}
JOURNAL_MODES = ["wal", "delete", "truncate", "persist"]


def state_of(folder: Path) -> dict[str, bytes]:
    """Every file beneath a folder, hidden ones included, with its digest."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).digest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A folder that holds an earlier export."""
    folder = tmp_path / "snapshot"
    export_snapshot(create_catalogue(tmp_path / "earlier.db", {"songs": [{"id": 1}]}), folder)
    return folder


def assert_refused(source: Path, snapshot: Path, sentence: str) -> None:
    before = state_of(snapshot)
    with pytest.raises(SourceError, match=sentence) as caught:
        export_snapshot(source, snapshot)
    assert str(caught.value).startswith(f"{source}: ")
    assert "\n" not in str(caught.value)
    assert before == state_of(snapshot)
    assert sorted(before) == ["catalog_read.db", "manifest.json"]
    assert sorted(path.name for path in snapshot.iterdir()) == ["catalog_read.db", "manifest.json"]


def test_missing_source_is_refused(tmp_path: Path, snapshot: Path) -> None:
    assert_refused(tmp_path / "nowhere" / "catalogue.db", snapshot, "there is no such file")
    assert not (tmp_path / "nowhere").exists()


def test_folder_as_source_is_refused(tmp_path: Path, snapshot: Path) -> None:
    assert_refused(tmp_path, snapshot, "this is not a file")


def test_empty_source_is_refused(tmp_path: Path, snapshot: Path) -> None:
    source = tmp_path / "empty.db"
    source.touch()
    assert_refused(source, snapshot, "not a catalogue: it has no table playlist_songs, playlists, songs")
    assert source.read_bytes() == b""


def test_source_that_is_no_database_is_refused(tmp_path: Path, snapshot: Path) -> None:
    source = tmp_path / "catalogue.db"
    source.write_bytes(b"id,name\n1,x\n" * 1000)
    assert_refused(source, snapshot, "this file is not an SQLite database")


def test_another_database_is_refused(tmp_path: Path, snapshot: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "photos.db")) as connection:
        connection.execute("CREATE TABLE songs(id INTEGER PRIMARY KEY)")
    assert_refused(tmp_path / "photos.db", snapshot, "no table playlist_songs, playlists$")


@pytest.mark.parametrize("table", SCHEMA)
def test_missing_column_is_named(tmp_path: Path, snapshot: Path, table: str) -> None:
    source = create_catalogue(tmp_path / "c.db", {}, without=[table])
    with closing(sqlite3.connect(source)) as connection:
        connection.execute(f"CREATE TABLE {table}(id INTEGER PRIMARY KEY)")
    assert_refused(source, snapshot, f"not a catalogue: {table} has no column ")


def test_ids_that_are_no_integers_are_refused(tmp_path: Path, snapshot: Path) -> None:
    source = create_catalogue(tmp_path / "c.db", {}, without=["playlists"])
    with closing(sqlite3.connect(source)) as connection:
        connection.execute(
            f"CREATE TABLE playlists({SCHEMA['playlists'].replace('INTEGER PRIMARY KEY', '')})"
        )
        connection.execute("INSERT INTO playlists(id) VALUES ('one')")
        connection.commit()
    assert_refused(source, snapshot, "the database is not a catalogue")


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
def test_utf16_source_is_refused(tmp_path: Path, snapshot: Path, encoding: str) -> None:
    source = create_catalogue(tmp_path / "c.db", SONGS, encoding=encoding)
    assert_refused(source, snapshot, f"stored as {encoding}; only UTF-8")


@pytest.mark.parametrize("journal_mode", JOURNAL_MODES)
def test_truncated_source_is_refused(tmp_path: Path, snapshot: Path, journal_mode: str) -> None:
    source = create_catalogue(tmp_path / "c.db", SONGS, journal_mode=journal_mode)
    os.truncate(source, source.stat().st_size // 2)
    assert_refused(source, snapshot, "the database is corrupt")


@pytest.mark.parametrize("journal_mode", JOURNAL_MODES)
def test_source_with_flipped_bytes_is_refused(tmp_path: Path, snapshot: Path, journal_mode: str) -> None:
    source = create_catalogue(tmp_path / "c.db", SONGS, journal_mode=journal_mode)
    content = bytearray(source.read_bytes())
    middle = slice(len(content) // 3, len(content) * 2 // 3)
    content[middle] = bytes(byte ^ 0xFF for byte in content[middle])
    source.write_bytes(content)
    assert_refused(source, snapshot, "the database is corrupt")


@pytest.mark.parametrize("journal_mode", JOURNAL_MODES)
@pytest.mark.parametrize("table", ["songs", "playlist_songs", "file_locations"])
def test_error_while_a_table_is_read_is_one_sentence_and_stops_the_others(
    tmp_path: Path, snapshot: Path, table: str, journal_mode: str
) -> None:
    """The tables are read at the same time: whichever fails, no thread and no file stays behind."""
    threads = set(threading.enumerate())
    source = create_catalogue(
        tmp_path / "c.db",
        {**SONGS, "playlists": [{"id": 1}]},
        without=[table],
        journal_mode=journal_mode,
    )
    names = [column.split()[0] for column in SCHEMA[table].split(", ")]
    columns = ", ".join(f"abs(-9223372036854775807 - 1) AS {name}" for name in names)
    with closing(sqlite3.connect(source)) as connection:
        connection.execute(f"CREATE VIEW {table} AS SELECT {columns}")
    assert_refused(source, snapshot, "integer overflow")
    assert set(threading.enumerate()) <= threads


# Locks

Lock = Callable[[Path], sqlite3.Connection]


def lock_with_a_rollback_journal(source: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(source, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return connection


def lock_with_a_wal(source: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(source, isolation_level=None)
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")
    connection.execute("INSERT INTO songs(id) VALUES (1000)")
    return connection


LOCKS = [("delete", lock_with_a_rollback_journal), ("wal", lock_with_a_wal)]


@pytest.mark.parametrize(("journal_mode", "lock"), LOCKS)
def test_locked_source_is_refused(
    tmp_path: Path, snapshot: Path, journal_mode: str, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("publisher.export.build_database", partial(build_database, lock_timeout_s=0.05))
    source = create_catalogue(tmp_path / "c.db", SONGS, journal_mode=journal_mode)
    with closing(lock(source)):
        assert_refused(source, snapshot, "another program keeps the database locked; try again later")
    export_snapshot(source, snapshot)


# What reading leaves behind


@pytest.mark.parametrize("journal_mode", JOURNAL_MODES)
def test_source_is_not_changed_by_a_byte(tmp_path: Path, journal_mode: str) -> None:
    source = create_catalogue(tmp_path / "source" / "c.db", SONGS, journal_mode=journal_mode)
    before = state_of(source.parent)
    export_snapshot(source, tmp_path / "snapshot")
    after = state_of(source.parent)
    if journal_mode == "wal":
        # SQLite makes both for whoever reads; see publisher/source.py for why they stay.
        assert after.pop("c.db-wal") == sha256(b"").digest()
        after.pop("c.db-shm")
    assert before == after


def test_changes_still_in_the_wal_are_exported_and_left_there(tmp_path: Path) -> None:
    source = create_catalogue(tmp_path / "source" / "c.db", SONGS)
    with closing(sqlite3.connect(source, isolation_level=None)) as writer:
        insert(writer, "songs", [{"id": 1000, "name": "new"}])
        before = state_of(source.parent)
        export_snapshot(source, tmp_path / "snapshot")
        after = state_of(source.parent)
    for state in (before, after):
        del state["c.db-shm"]  # the shared index: readers note there how far they have read
    assert before == after
    found = read(
        tmp_path / "snapshot" / "catalog_read.db", "SELECT name FROM catalog_tracks WHERE song_id > 999"
    )
    assert found == [("new",)]


@pytest.mark.parametrize("name", ["a b#c?d%e.db", "目录.db", "file:x?mode=rw"])
def test_path_of_the_source_may_hold_any_character(tmp_path: Path, name: str) -> None:
    source = create_catalogue(tmp_path / name, SONGS, journal_mode="delete")
    assert export_snapshot(source, tmp_path / "snapshot").track_count == 399


# A folder that must not be written


@contextmanager
def as_somebody_else() -> Iterator[None]:
    """Without root's right to write everywhere; does nothing when we have none."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)  # nobody
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def readable_folder() -> Iterator[Path]:
    """A folder that anybody may enter, which pytest's are not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="folders have no write permission on Windows")
def test_wal_source_in_a_read_only_folder_is_explained(readable_folder: Path) -> None:
    source = create_catalogue(readable_folder / "c.db", SONGS)
    target = readable_folder / "snapshot"
    target.mkdir()
    target.chmod(0o777)
    readable_folder.chmod(0o555)
    with as_somebody_else(), pytest.raises(SourceError, match=r"it is in WAL mode .* folder is not writable"):
        build_database(source, target / "x.db")
    assert sorted(path.name for path in readable_folder.iterdir()) == ["c.db", "snapshot"]


@pytest.mark.skipif(os.name == "nt", reason="folders have no write permission on Windows")
def test_rollback_journal_source_in_a_read_only_folder_is_exported(readable_folder: Path) -> None:
    source = create_catalogue(readable_folder / "c.db", SONGS, journal_mode="delete")
    target = readable_folder / "snapshot"
    target.mkdir()
    target.chmod(0o777)
    readable_folder.chmod(0o555)
    with as_somebody_else():
        export = build_database(source, target / "x.db")
    assert export.snapshot.track_count == 399
