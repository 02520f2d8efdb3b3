"""Single edits that a comparison of what is stored with what was public could overlook.

Each is refreshed with the settings known, which is when the fewest columns are computed.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import SourceError
from publisher.differences import TableChanges
from publisher.known import NOTHING_KNOWN
from publisher.refresh import refresh_database
from tests.publisher import SCHEMA, Tables, one_file, read
from tests.publisher.test_refresh import change
from tests.publisher.test_refresh_settings import assert_fresh, exported

PLAYLISTS: Tables = {
    "playlists": [{"id": 1}, {"id": 2}, {"id": 3}],
    "songs": [{"id": n} for n in range(1, 9)],
    "playlist_songs": [
        {"playlist_id": playlist, "song_id": song, "position": None if song > 4 else song}
        for playlist in (1, 2, 3)
        for song in range(1, 7)
    ],
}


def refreshed(folder: Path, tables: Tables, *statements: str) -> dict[str, TableChanges]:
    """What a refresh changes after these edits, once it is known to give what an export gives."""
    source, database, known = exported(folder, tables)
    change(source, *statements)
    result = refresh_database(source, database, known=known)
    assert_fresh(source, database)
    assert not refresh_database(source, database, known=result.known).is_changed
    return {name: changes for name, changes in result.tables.items() if any(changes)}


@pytest.mark.parametrize(
    "statements",
    [
        ["UPDATE file_assets SET id = 6", "UPDATE file_locations SET file_asset_id = 6"],
        ["UPDATE file_assets SET file_size_bytes = NULL"],
        ["INSERT INTO songs(id) VALUES (4)", "UPDATE file_assets SET song_id = 4"],
        ["UPDATE file_locations SET is_primary = 1"],
    ],
    ids=["only-the-asset", "unknown-size", "other-song", "primary"],
)
def test_change_of_a_file_is_seen(tmp_path: Path, statements: Sequence[str]) -> None:
    assert refreshed(tmp_path, one_file("a"), *statements)["catalog_track_files"] == TableChanges(updated=1)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM songs",
        "DELETE FROM file_assets",
        "DELETE FROM file_locations",
        "DELETE FROM storage_backends",
        "UPDATE file_locations SET status = 'deleted'",
        "UPDATE file_locations SET locator = ''",
        "UPDATE file_assets SET song_id = NULL",
        "UPDATE file_assets SET song_id = 99",
        "UPDATE file_locations SET backend_id = 99",
    ],
)
def test_file_that_lost_what_it_needs_is_deleted_and_comes_back(tmp_path: Path, statement: str) -> None:
    source, database, known = exported(tmp_path, one_file("a"))
    before = source.read_bytes()
    change(source, "PRAGMA journal_mode=DELETE", statement)
    result = refresh_database(source, database, known=known)
    assert result.tables["catalog_track_files"] == TableChanges(deleted=1)
    assert_fresh(source, database)
    source.write_bytes(before)
    result = refresh_database(source, database, known=result.known)
    assert result.tables["catalog_track_files"] == TableChanges(inserted=1)


@pytest.mark.parametrize("is_known", [True, False])
def test_file_whose_id_no_handle_can_name_any_more_is_deleted(tmp_path: Path, is_known: bool) -> None:
    """Also what an earlier version has exported: its settings are not those of today."""
    source, database, known = exported(tmp_path, one_file("a"))
    change(source, "UPDATE file_locations SET id = -7")
    change(database, "UPDATE catalog_track_files SET location_id = -7, locator = 'loc:-7.08819d35'")
    result = refresh_database(source, database, known=known if is_known else NOTHING_KNOWN)
    assert result.tables["catalog_track_files"] == TableChanges(deleted=1)
    assert_fresh(source, database)


def test_entries_and_files_of_a_deleted_song_go_with_it(tmp_path: Path) -> None:
    """They stay in the catalogue, and so must stay away at every later refresh."""
    tables = {**one_file("a"), **PLAYLISTS}
    assert refreshed(tmp_path, tables, "DELETE FROM songs WHERE id = 3") == {
        "catalog_tracks": TableChanges(deleted=1),
        "catalog_track_files": TableChanges(deleted=1),
        # Of each list the entries from there on move up by one.
        "catalog_playlist_tracks": TableChanges(updated=9, deleted=3),
    }


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE playlist_songs SET position = 9 WHERE song_id = 4", TableChanges(updated=3)),
        ("UPDATE playlist_songs SET position = 0 WHERE song_id = 4", TableChanges(updated=12)),
        ("UPDATE playlist_songs SET position = NULL WHERE song_id = 4", TableChanges(updated=3)),
        ("UPDATE playlist_songs SET position = 5 - position", TableChanges(updated=12)),
        ("INSERT INTO playlist_songs VALUES (2, 1, 1)", TableChanges(inserted=1, updated=5)),
        ("INSERT INTO playlist_songs VALUES (2, 8, NULL)", TableChanges(inserted=1)),
        ("DELETE FROM playlist_songs WHERE playlist_id = 2", TableChanges(deleted=6)),
        ("DELETE FROM playlist_songs WHERE song_id = 6", TableChanges(deleted=3)),
        ("DELETE FROM playlist_songs", TableChanges(deleted=18)),
        ("DELETE FROM playlists WHERE id = 1", TableChanges(deleted=6)),
        ("UPDATE playlist_songs SET playlist_id = 3 WHERE playlist_id = 2", None),
    ],
)
def test_change_of_a_playlist_touches_the_entries_that_differ(
    tmp_path: Path, statement: str, expected: TableChanges | None
) -> None:
    found = refreshed(tmp_path, PLAYLISTS, statement)["catalog_playlist_tracks"]
    assert found == (expected or TableChanges(inserted=6, updated=5, deleted=6))


def test_playlist_that_is_spelled_in_two_ways_is_refused_as_by_the_export(tmp_path: Path) -> None:
    source, database, known = exported(tmp_path, PLAYLISTS)
    change(
        source,
        "CREATE TABLE other(playlist_id, song_id, position)",
        "INSERT INTO other VALUES (1, 1, 1), ('1', 2, 1), (2, 2, 1)",
        "DROP TABLE playlist_songs",
        "ALTER TABLE other RENAME TO playlist_songs",
    )
    with pytest.raises(SourceError, match="not a catalogue"):
        refresh_database(source, database, known=known)


# Values of every type in every column: an older program, or a table without types, may leave them.
ODD = [None, 0, 1, 1.0, 1.5, 1000, 1e3, 1e17, 10**17, 2**63 - 1, 1e19, "", "1", "1.0", "1e3", " 1", "01", "x"]
values = st.sampled_from([*ODD, b"1", b"x", b"", "1.0e+17", "1e+17", "a", "A", b"a", "{}", b"{}", '{"a": 1}'])
NUMBERS = ("file_size_bytes", "play_count", "collected_song_count", "is_primary", "position")
TEXTS = (
    *("platform", "remote_song_id", "name", "singers", "ext", "metadata_json", "remote_playlist_id"),
    *("description", "cover_url", "quality_label", "locator", "external_id"),
)


@st.composite
def odd_edits(draw: st.DrawFn) -> list[tuple[str, str, Any, Any]]:
    """Of some columns, the value before and the value after."""
    tables = ("playlists", "songs", "playlist_songs", "playlist_pools", "file_assets", "file_locations")
    columns = [
        (table, column.split()[0])
        for table in tables
        for column in SCHEMA[table].split(", ")
        if column.split()[0] in (*NUMBERS, *TEXTS)
    ]
    chosen = draw(st.lists(st.sampled_from(columns), unique=True, min_size=1, max_size=8))
    return [(*column, draw(values), draw(values)) for column in chosen]


@given(odd_edits(), st.sampled_from(["", "COLLATE NOCASE", "INTEGER", "TEXT", "TEXT COLLATE NOCASE", "REAL"]))
@settings(max_examples=60, deadline=None)
def test_values_of_any_type_are_refreshed_as_exported(
    edits: list[tuple[str, str, Any, Any]], declared: str
) -> None:
    tables: dict[str, list[dict[str, Any]]] = {
        **one_file("a", config={"public_base_url": "https://media.example.com"}),
        "playlists": [{"id": 1}],
        "playlist_songs": [{"playlist_id": 1, "song_id": 3, "position": 2}],
        "playlist_pools": [{"id": 1, "pool_kind": "toplist"}],
        "pool_playlists": [{"pool_id": 1, "playlist_id": 1}],
    }
    tables["storage_backends"].append({"id": 4, "name": "nas", "backend_type": "nas"})
    tables["file_locations"].append(tables["file_locations"][0] | {"id": 8, "backend_id": 4})
    with tempfile.TemporaryDirectory() as name:
        source, database, _ = exported(Path(name), tables)
        with closing(sqlite3.connect(source, isolation_level=None)) as connection:
            for table in SCHEMA:
                columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
                types = [
                    f"{column} {'INTEGER PRIMARY KEY' if column == 'id' else declared}" for column in columns
                ]
                connection.execute(f"CREATE TABLE other({', '.join(types)})")
                connection.execute(f"INSERT INTO other SELECT * FROM {table}")
                connection.execute(f"DROP TABLE {table}")
                connection.execute(f"ALTER TABLE other RENAME TO {table}")
            known = refresh_database(source, database).known
            for edit in (2, 3):
                for row in edits:
                    connection.execute(f"UPDATE {row[0]} SET {row[1]} = ?", (row[edit],))
                known = refresh_database(source, database, known=known).known
                assert_fresh(source, database)
                assert read(database, "PRAGMA integrity_check") == [("ok",)]
