"""The suspects: rows that may not be as in the database, found without computing what is public of each.

Invariant: a row that is no suspect is the same in a fresh export. Most rows have not changed, and of those
only what was stored is compared. That a suspect differs indeed, and how, is found out in publisher/refresh.py
with the queries of publisher/rows.py.
"""

from __future__ import annotations

import sqlite3

from publisher.rows import Selection, define_existing_ids, select

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


def find_suspects(connection: sqlite3.Connection, name: str, *, settings_kept: bool) -> str:
    """Fill a new table with the suspects of a table of `SUSPECTED_TABLES`; a query of their keys.

    The earlier export is attached as `old`. `settings_kept` says that it was made with the settings of today.
    Raises:
        sqlite3.Error: when a database cannot be read.
    """
    selection, key, found = select(name), _KEYS[name], f"temp.suspects_{name}"
    own_key = selection.columns[key]
    differs = _differs(selection.columns, settings_kept)
    connection.execute(f"CREATE TABLE {found}(key INTEGER PRIMARY KEY)")
    collect = f"INSERT OR IGNORE INTO {found}"
    connection.execute(
        f"{collect} SELECT {own_key} FROM {selection.tables}"
        f" LEFT JOIN old.{name} AS was ON was.{key} = {own_key}"
        f" WHERE {selection.condition} AND (was.{key} IS NULL OR {differs})"
    )
    connection.execute(f"{collect} {_gone(selection, name, key)}")
    if selection.song_id is not None:
        # A song that a row of the earlier export has was in that export.
        songs = _gone(select("catalog_tracks"), "catalog_tracks", "song_id")
        connection.execute(f"{collect} SELECT {key} FROM old.{name} WHERE song_id IN ({songs})")
        define_existing_ids(
            connection,
            f"SELECT id FROM source.songs WHERE id IN (SELECT CAST({selection.song_id} AS INTEGER)"
            f" FROM {selection.tables} WHERE {own_key} IN (SELECT key FROM {found}))",
        )
    return f"SELECT key FROM {found}"


def _differs(columns: dict[str, str], settings_kept: bool) -> str:
    terms = []
    for column, expression in columns.items():
        # The left side decides the collation: the catalogue may declare one in which different texts are
        # equal.
        term = f"was.{column} IS NOT {expression}"
        kept = _KEPT.get(column) if settings_kept else None
        terms.append(term if kept is None else f"(NOT ({kept}) AND {term})")
    return " OR ".join(terms)


def _gone(selection: Selection, name: str, key: str) -> str:
    """A query of the keys of rows that would not be selected now, whatever songs exist.

    As outer joins it takes half as long as with NOT EXISTS. The rows are read in the order of their keys,
    which is that of no index.
    """
    matches = f"{selection.columns[key]} = was.{key} AND {selection.condition}"
    joined = ((selection.table, matches), *selection.joined)
    outer = " ".join(f"LEFT JOIN {table} ON {matches}" for table, matches in joined)
    missing = " OR ".join(f"{table.rpartition('.')[2]}.id IS NULL" for table, _ in joined)
    return f"SELECT was.{key} FROM old.{name} AS was NOT INDEXED {outer} WHERE {missing}"
