"""The suspects: rows that may not be as in the database, found without computing what is public of each.

Invariant: a row that is no suspect is the same in a fresh export. Most rows have not changed, and of those
only what was stored is compared. That a suspect differs indeed, and how, is found out in publisher/refresh.py
with the queries of publisher/rows.py.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable
from concurrent.futures import Future
from typing import NamedTuple

from publisher.known import SAME_HANDLE, WITH_ASSETS
from publisher.rows import define_existing_ids, select

_KEYS = {"catalog_tracks": "song_id", "catalog_track_files": "location_id"}
SUSPECTED_TABLES = frozenset(_KEYS)

# While what decides is as it was (`fingerprint_settings`), these say when a column needs no second look.
# Metadata: what is public of text that is public already is that text (tests/publisher/test_metadata.py).
# URLs: backend and locator are compared as well, and a locator that was repaired, whose URL names the bytes
# before that, holds U+FFFD.
_KEPT = {
    "metadata_json": "was.metadata_json IS CAST(songs.metadata_json AS TEXT)",
    "public_url": "was.public_url IS NOT NULL AND NOT instr(was.locator, char(0xFFFD))",
}


class Gone(NamedTuple):
    """The keys of rows of the earlier export that would not be selected now; files whatever songs exist."""

    songs: array[int]
    files: array[int]


def find_gone(connection: sqlite3.Connection, *, with_files: bool) -> Gone:
    """Find them; the files only of a catalogue that has any.

    The earlier export is attached as `old`.
    Raises:
        sqlite3.Error: when a database cannot be read.
    """
    return Gone(
        _find_gone(connection, "catalog_tracks"),
        _find_gone(connection, "catalog_track_files") if with_files else array("q"),
    )


def define_gone_songs(connection: sqlite3.Connection, gone: Gone) -> str:
    """Fill a new table with the songs that are gone; a query of their ids."""
    connection.execute("CREATE TABLE temp.gone_songs(id INTEGER PRIMARY KEY)")
    connection.executemany("INSERT INTO temp.gone_songs VALUES (?)", _one_column(gone.songs))
    return "SELECT id FROM temp.gone_songs"


def find_suspects(
    connection: sqlite3.Connection,
    name: str,
    gone: Future[Gone],
    *,
    settings_kept: bool,
    assets_kept: bool = False,
) -> str:
    """Fill a new table with the suspects of a table of `SUSPECTED_TABLES`; a query of their keys.

    The earlier export is attached as `old`. `settings_kept` says that it was made with the settings of today,
    `assets_kept` that `known` tells for which assets. `gone` is waited for when it is
    needed.
    Raises:
        sqlite3.Error: when a database cannot be read.
    """
    selection, key, found = select(name), _KEYS[name], f"temp.suspects_{name}"
    own_key = selection.columns[key]
    kept = dict(_KEPT) if settings_kept else {}
    known = ""
    if assets_kept:
        kept["locator"] = SAME_HANDLE
        known = WITH_ASSETS
    connection.execute(f"CREATE TABLE {found}(key INTEGER PRIMARY KEY)")
    collect = f"INSERT OR IGNORE INTO {found}"
    connection.execute(
        f"{collect} SELECT {own_key} FROM {selection.tables}"
        f" LEFT JOIN old.{name} AS was ON was.{key} = {own_key}{known}"
        f" WHERE {selection.condition} AND (was.{key} IS NULL OR {_differs(selection.columns, kept)})"
    )
    gone_keys = gone.result().songs if selection.song_id is None else gone.result().files
    connection.executemany(f"{collect} VALUES (?)", _one_column(gone_keys))
    if selection.song_id is not None:
        # A song that a row of the earlier export has was in that export.
        songs = define_gone_songs(connection, gone.result())
        connection.execute(f"{collect} SELECT {key} FROM old.{name} WHERE song_id IN ({songs})")
        define_existing_ids(
            connection,
            f"SELECT id FROM source.songs WHERE id IN (SELECT CAST({selection.song_id} AS INTEGER)"
            f" FROM {selection.tables} WHERE {own_key} IN (SELECT key FROM {found}))",
        )
    return f"SELECT key FROM {found}"


def _differs(columns: dict[str, str], kept: dict[str, str]) -> str:
    terms = []
    for column, expression in columns.items():
        # The left side decides the collation: the catalogue may declare one in which different texts are
        # equal.
        term = f"was.{column} IS NOT {expression}"
        same = kept.get(column)
        terms.append(term if same is None else f"(NOT ({same}) AND {term})")
    return " OR ".join(terms)


def _one_column(keys: Iterable[int]) -> Iterable[tuple[int]]:
    return ((key,) for key in keys)


def _find_gone(connection: sqlite3.Connection, name: str) -> array[int]:
    """The keys of rows that would not be selected now, whatever songs exist.

    As outer joins it takes half as long as with NOT EXISTS. The rows are read in the order of their keys,
    which is that of no index.
    """
    selection, key = select(name), _KEYS[name]
    matches = f"{selection.columns[key]} = was.{key} AND {selection.condition}"
    joined = ((selection.table, matches), *selection.joined)
    outer = " ".join(f"LEFT JOIN {table} ON {matches}" for table, matches in joined)
    missing = " OR ".join(f"{table.rpartition('.')[2]}.id IS NULL" for table, _ in joined)
    rows = connection.execute(f"SELECT was.{key} FROM old.{name} AS was NOT INDEXED {outer} WHERE {missing}")
    return array("q", (key for (key,) in rows))
