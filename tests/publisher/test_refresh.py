"""The refresh: nothing moves that need not, nothing deleted stays readable, only a read model is touched."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import MalformedError, SourceError
from contracts.read_model import PAGE_BYTES, TABLES
from music_cloud.sample import create_catalogue as create_sample
from music_cloud.sample import evolve
from publisher import refresh as refresh_module
from publisher import rows as rows_module
from publisher.differences import TableChanges
from publisher.export import build_database
from publisher.metadata import public_metadata
from publisher.refresh import refresh_database
from tests.publisher import Tables, create_catalogue, read
from tests.publisher.test_refresh_property import differences

NOTHING = dict.fromkeys(TABLES, TableChanges())


@pytest.fixture(scope="module")
def _exported_sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("sample")
    create_sample(folder / "catalogue.db", songs=3000)
    build_database(folder / "catalogue.db", folder / "read.db")
    return folder / "catalogue.db", folder / "read.db"


@pytest.fixture
def sample(_exported_sample: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A catalogue with everything awkward in it, and its export; both one's own."""
    source, database = (Path(shutil.copy(path, tmp_path)) for path in _exported_sample)
    return source, database


def change(source: Path, *statements: str) -> None:
    with closing(sqlite3.connect(source, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def pages(database: Path) -> list[bytes]:
    content = database.read_bytes()
    return [content[start : start + PAGE_BYTES] for start in range(0, len(content), PAGE_BYTES)]


def changed_pages(before: list[bytes], after: list[bytes]) -> int:
    kept = sum(old == new for old, new in zip(before, after, strict=False))
    return max(len(before), len(after)) - kept


def refreshed_pages(source: Path, database: Path) -> int:
    """Refresh, compare with a fresh export, and count the pages that moved."""
    before = pages(database)
    refresh_database(source, database)
    fresh = database.with_name("fresh.db")
    build_database(source, fresh)
    assert differences(fresh, database) == []
    return changed_pages(before, pages(database))


# Nothing moves that need not


def test_refresh_without_a_change_leaves_every_byte(sample: tuple[Path, Path]) -> None:
    source, database = sample
    before = sha256(database.read_bytes()).digest()
    assert refresh_database(source, database).tables == NOTHING
    assert before == sha256(database.read_bytes()).digest()


def test_how_the_source_is_stored_changes_nothing(sample: tuple[Path, Path]) -> None:
    """Other rowids, other pages, another journal, statistics, and no index."""
    source, database = sample
    before = sha256(database.read_bytes()).digest()
    change(
        source,
        "CREATE TABLE reversed AS SELECT * FROM playlist_songs ORDER BY rowid DESC",
        "DROP TABLE playlist_songs",
        "ALTER TABLE reversed RENAME TO playlist_songs",
        "PRAGMA journal_mode=DELETE",
        "PRAGMA page_size=1024",
        "VACUUM",
        "ANALYZE",
    )
    assert refresh_database(source, database).tables == NOTHING
    assert before == sha256(database.read_bytes()).digest()


def test_value_of_the_same_length_moves_one_page_and_the_header(sample: tuple[Path, Path]) -> None:
    """Where an index leads to the row, it stays as it is."""
    source, database = sample
    change(source, "UPDATE songs SET ext = 'abc' || substr(ext, 4) WHERE id = 1500 AND length(ext) >= 3")
    assert refreshed_pages(source, database) == 2


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE songs SET name = name || ' (live)', metadata_json = NULL WHERE id = 1500",
        "UPDATE songs SET remote_song_id = 'zzz' WHERE id = 1500",
        "DELETE FROM songs WHERE id = 1500",
        "INSERT INTO songs(id, platform, remote_song_id, name) VALUES (900000, 'qq', 'new', 'new')",
    ],
    ids=["renamed", "other-remote-id", "deleted", "new"],
)
def test_one_changed_song_moves_few_pages(sample: tuple[Path, Path], statement: str) -> None:
    source, database = sample
    total = len(pages(database))
    change(source, statement)
    assert 0 < refreshed_pages(source, database) <= 12 < total / 10


def test_an_hour_moves_a_small_part_of_the_file(tmp_path: Path) -> None:
    """Of a full first export: later ones have room on their pages."""
    source, database = tmp_path / "catalogue.db", tmp_path / "read.db"
    create_sample(source, songs=20_000)
    build_database(source, database)
    total = len(pages(database))
    evolve(source, churn="hour", seed=1)
    assert 0 < refreshed_pages(source, database) < total / 20


def test_what_is_public_is_computed_only_of_rows_that_differ(
    sample: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While what can be is known: only of metadata that is not public as it is stored."""
    source, database = sample
    known = refresh_database(source, database).known
    calls = dict.fromkeys(("public_metadata", "format_handle", "_percent_encode", "repair_text"), 0)

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls[name] += 1
            return function(*arguments)

        return call

    monkeypatch.setattr(
        rows_module, "public_metadata", lambda *paths: counted("public_metadata", public_metadata(*paths))
    )
    for name in ("format_handle", "_percent_encode", "repair_text"):
        monkeypatch.setattr(rows_module, name, counted(name, getattr(rows_module, name)))
    assert refresh_database(source, database, known=known).tables == NOTHING
    with closing(sqlite3.connect(source)) as connection:
        connection.execute("ATTACH ? AS read", (str(database),))
        (filtered,) = connection.execute(
            "SELECT count(*) FROM songs JOIN read.catalog_tracks ON song_id = id"
            " WHERE catalog_tracks.metadata_json IS NOT CAST(songs.metadata_json AS TEXT)"
        ).fetchone()
    repaired = calls.pop("repair_text")
    assert {"public_metadata": filtered, "format_handle": 0, "_percent_encode": 0} == calls
    songs = read(database, "SELECT count(*) FROM catalog_tracks")[0][0]
    assert (filtered < songs / 10, repaired < songs) == (True, True)


# Every difference is seen


def test_song_without_any_value_is_inserted(tmp_path: Path) -> None:
    """Nothing but its key tells it from a missing row."""
    source, database = create_catalogue(tmp_path / "c.db", {}), tmp_path / "read.db"
    build_database(source, database)
    change(source, "INSERT INTO songs(id) VALUES (7)")
    assert refresh_database(source, database).tables["catalog_tracks"] == TableChanges(inserted=1)
    assert read(database, "SELECT song_id FROM catalog_tracks") == [(7,)]


def test_change_of_case_is_seen_where_the_catalogue_ignores_case(tmp_path: Path) -> None:
    source, database = create_catalogue(tmp_path / "c.db", {}), tmp_path / "read.db"
    change(
        source,
        "DROP TABLE songs",
        "CREATE TABLE songs(id INTEGER PRIMARY KEY, platform TEXT, remote_song_id TEXT,"
        " name TEXT COLLATE NOCASE, singers TEXT, ext TEXT, file_size_bytes INTEGER, metadata_json TEXT)",
        "INSERT INTO songs(id, name) VALUES (1, 'abc')",
    )
    build_database(source, database)
    change(source, "UPDATE songs SET name = 'ABC'")
    refresh_database(source, database)
    assert read(database, "SELECT name FROM catalog_tracks") == [("ABC",)]


def test_playlist_that_loses_its_end_keeps_the_rest(tmp_path: Path) -> None:
    """Also one without positions, one that is emptied, and one that is gone."""
    entries = [
        {"playlist_id": playlist, "song_id": song, "position": None if playlist == 2 else song}
        for playlist in (1, 2, 3, 4)
        for song in range(1, 6)
    ]
    tables: Tables = {
        "playlists": [{"id": n} for n in (1, 2, 3, 4)],
        "songs": [{"id": n} for n in range(1, 6)],
        "playlist_songs": entries,
    }
    source, database = create_catalogue(tmp_path / "c.db", tables), tmp_path / "read.db"
    build_database(source, database)
    change(
        source,
        "DELETE FROM playlist_songs WHERE playlist_id IN (1, 2) AND song_id > 3 OR playlist_id = 3",
        "DELETE FROM playlists WHERE id = 4",
    )
    result = refresh_database(source, database)
    assert result.tables["catalog_playlist_tracks"] == TableChanges(deleted=14)
    assert read(
        database, "SELECT DISTINCT playlist_id, max(ordinal) OVER () FROM catalog_playlist_tracks"
    ) == [
        (1, 3),
        (2, 3),
    ]


def test_tables_that_vanish_and_return_are_emptied_and_filled(sample: tuple[Path, Path]) -> None:
    source, database = sample
    change(source, "ALTER TABLE file_assets RENAME TO away", "ALTER TABLE pool_playlists RENAME TO away_too")
    result = refresh_database(source, database)
    assert result.tables["catalog_track_files"].deleted > 0
    assert read(database, "SELECT count(*) FROM catalog_track_files, catalog_toplists") == [(0,)]
    change(source, "ALTER TABLE away RENAME TO file_assets", "ALTER TABLE away_too RENAME TO pool_playlists")
    assert refreshed_pages(source, database) > 0


def test_fewer_metadata_keys_reach_every_row(sample: tuple[Path, Path]) -> None:
    source, database = sample
    refresh_database(source, database, metadata_keys=())
    assert read(database, "SELECT DISTINCT metadata_json FROM catalog_tracks ORDER BY 1") == [
        (None,),
        ("{}",),
    ]


# Nothing deleted stays readable


def test_deleted_and_replaced_text_is_nowhere_in_the_file(tmp_path: Path) -> None:
    songs = [{"id": n, "remote_song_id": f"GONE-{n % 3}-{n}", "name": f"GONE-{n % 3}"} for n in range(900)]
    source, database = create_catalogue(tmp_path / "c.db", {"songs": songs}), tmp_path / "read.db"
    build_database(source, database)
    change(
        source,
        "DELETE FROM songs WHERE name = 'GONE-1'",
        "UPDATE songs SET remote_song_id = id, name = 'n' WHERE name = 'GONE-2'",
    )
    refresh_database(source, database)
    content = database.read_bytes()
    assert tuple(marker in content for marker in (b"GONE-0", b"GONE-1", b"GONE-2")) == (True, False, False)


# Errors


def test_refused_source_leaves_both_files(sample: tuple[Path, Path]) -> None:
    """The error comes when playlists have been compared already."""
    source, database = sample
    change(
        source,
        "UPDATE playlists SET name = 'x'",
        "UPDATE storage_backends SET backend_type = 'object_storage',"
        """ config_json = '{"public_base_url": "https://user:password@example.com"}'""",
        "PRAGMA journal_mode=DELETE",
    )
    before = source.read_bytes(), database.read_bytes()
    with pytest.raises(SourceError, match="password"):
        refresh_database(source, database)
    assert before == (source.read_bytes(), database.read_bytes())
    assert {source, database} == set(source.parent.iterdir())


@pytest.mark.parametrize("mode", ["rwc", "rw"], ids=["while-comparing", "while-applying"])
def test_full_disk_is_named_and_leaves_the_source(
    sample: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    source, database = sample
    change(source, "UPDATE songs SET name = name || hex(zeroblob(200))", "PRAGMA journal_mode=DELETE")
    before = source.read_bytes()
    connect = refresh_module._connect

    def bounded(path: Path, opened: str, *options: Any) -> sqlite3.Connection:
        connection = connect(path, opened, *options)
        if opened == mode:
            connection.execute("PRAGMA max_page_count=10")  # or what the file has already
        return connection

    monkeypatch.setattr(refresh_module, "_connect", bounded)
    with pytest.raises(OSError, match="the disk is full"):
        refresh_database(source, database)
    assert before == source.read_bytes()
    assert {source, database} == set(source.parent.iterdir())


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TRIGGER t AFTER INSERT ON catalog_tracks BEGIN SELECT 1; END",),
        ("ALTER TABLE catalog_tracks ADD COLUMN rating",),
        ("DROP INDEX catalog_tracks_by_remote_id",),
        ("PRAGMA user_version=2",),
        ("PRAGMA page_size=8192", "VACUUM"),
    ],
    ids=["trigger", "column", "index", "version", "page-size"],
)
def test_other_schema_is_refused_and_says_rebuild(
    sample: tuple[Path, Path], statements: tuple[str, ...]
) -> None:
    source, database = sample
    change(database, *statements)
    before = database.read_bytes()
    with pytest.raises(MalformedError, match="must be rebuilt"):
        refresh_database(source, database)
    assert before == database.read_bytes()


@pytest.mark.parametrize("content", [None, b"", b"no database" * 99])
def test_what_is_no_database_is_refused_and_says_rebuild(
    sample: tuple[Path, Path], content: bytes | None
) -> None:
    source, database = sample
    database.unlink()
    if content is not None:
        database.write_bytes(content)
    with pytest.raises(MalformedError, match="must be rebuilt"):
        refresh_database(source, database)
