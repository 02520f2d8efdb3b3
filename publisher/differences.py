"""The differences between the catalogue and an earlier export, collected row by row beside both.

Invariant: neither is written to. Afterwards each table of a part holds the rows that differ as they should
be, and `gone_<table>` the keys of those that should not be there. Parts are compared at the same time, at one
moment of the catalogue.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from contracts.read_model import TABLES
from publisher.backends import fingerprint_settings
from publisher.entries import collect_entries
from publisher.known import Known, has_whole_numbers, is_known, write_assets
from publisher.rows import TEXT_TABLES, define, find_invalid_text, is_available, select
from publisher.suspects import SUSPECTED_TABLES, Gone, find_gone, find_suspects

# Compared at the same time; three, so that two cores are busy whichever takes longest. Mostly the files call
# Python functions, for their handles, so hardly any part waits for Python's lock. The last part takes least:
# it is the one that finds out what is gone, which the files need towards their end.
PARTS = (
    ("catalog_track_files",),
    ("catalog_playlist_tracks",),
    ("catalog_tracks", "catalog_playlists", "catalog_toplists"),
)
FILES_PART, GONE_PART = 0, 2
_SMALL_TEXT_TABLES = frozenset({"playlists", "playlist_pools"})


class Table(NamedTuple):
    """The columns of a table of the read model: all, those of its key, and the others."""

    name: str
    columns: list[str]
    keys: list[str]
    values: list[str]


class TableChanges(NamedTuple):
    """How many rows of one table were not as in the catalogue."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0


class Comparison:
    """What the parts of one comparison share, and what they find.

    `present` are the tables of the catalogue, `known` what is known of the earlier export; `assets` is where
    to write the file of the same kind for what follows it.
    """

    def __init__(
        self,
        tables: dict[str, Table],
        present: Collection[str],
        metadata_keys: Collection[str] | None,
        known: Known,
        assets: Path,
    ) -> None:
        self.changes: dict[str, TableChanges] = {}
        self._settings: str | None = None
        self._new_assets: Path | None = None
        self._tables = tables
        self._present = present
        self._metadata_keys = metadata_keys
        self._before = known
        self._assets = assets
        self._gone: Future[Gone] = Future()

    @property
    def known(self) -> Known:
        """What is known of the earlier export with these differences."""
        return Known(self._settings, self._new_assets)

    def compare_part(self, connection: sqlite3.Connection, part: int) -> None:
        """Collect the differences of the tables of one part into new tables of `main`.

        The earlier export is attached as `old`, the catalogue as `source`, for the part of the files what is
        known as `known`. Ends the transaction.
        Raises:
            SourceError: when a public base URL holds a user or a password.
            sqlite3.Error: when a database cannot be read or written.
        """
        backends = define(connection, self._present, self._metadata_keys)
        settings = fingerprint_settings(backends, self._metadata_keys)
        if part == GONE_PART:
            self._settings = settings
            self._find_gone(connection)
        for name in PARTS[part]:
            table = self._tables[name]
            connection.execute(TABLES[name])
            connection.execute(
                f"CREATE TABLE gone_{name} AS SELECT {', '.join(table.keys)} FROM old.{name} LIMIT 0"
            )
            self._compare(connection, table, settings)
            self.changes[name] = _count(connection, table)
        connection.execute("COMMIT")

    def _find_gone(self, connection: sqlite3.Connection) -> None:
        """Whoever waits for what is gone gets it, or the error."""
        try:
            has_files = is_available("catalog_track_files", self._present)
            self._gone.set_result(find_gone(connection, with_files=has_files))
        except BaseException as error:
            self._gone.set_exception(error)
            raise

    def _compare(self, connection: sqlite3.Connection, table: Table, settings: str | None) -> None:
        if not is_available(table.name, self._present):
            # What an older catalogue cannot fill is empty.
            _compare_rows(connection, table, f"SELECT * FROM old.{table.name} LIMIT 0")
        elif table.name == "catalog_playlist_tracks":
            collect_entries(connection)
        elif table.name in SUSPECTED_TABLES:
            suspects = self._find_suspects(connection, table.name, settings)
            # They are few: each text is repaired, whether it needs it or not.
            _compare_rows(connection, table, select(table.name, TEXT_TABLES).query, suspects)
        else:
            invalid = find_invalid_text(connection, _SMALL_TEXT_TABLES.intersection(self._present))
            _compare_rows(connection, table, select(table.name, invalid).query)

    def _find_suspects(self, connection: sqlite3.Connection, name: str, settings: str | None) -> str:
        settings_kept = settings is not None and settings == self._before.settings
        if name != "catalog_track_files":
            return find_suspects(connection, name, self._gone, settings_kept=settings_kept)
        assets_kept = has_whole_numbers(connection)
        suspects = find_suspects(
            connection,
            name,
            self._gone,
            settings_kept=settings_kept,
            assets_kept=settings_kept and assets_kept,
        )
        if assets_kept:
            self._new_assets = self._before.assets
            if self._new_assets is None or not is_known(connection, select(name), suspects):
                write_assets(connection, select(name), suspects, self._before.assets, self._assets)
                self._new_assets = self._assets
        return suspects


def _compare_rows(
    connection: sqlite3.Connection, table: Table, query: str, suspects: str | None = None
) -> None:
    """Collect the differences of the rows with one of the suspects as their key, or of all rows."""
    keys = ", ".join(table.keys)
    among = "true" if suspects is None else f"{keys} IN ({suspects})"
    new = f"WITH every({', '.join(table.columns)}) AS ({query}), new AS (SELECT * FROM every WHERE {among})"
    connection.execute(
        f"INSERT INTO main.{table.name} {new}"
        f" SELECT new.* FROM new {_with_old_row(table)} WHERE {_differs(table)}"
    )
    connection.execute(
        f"INSERT INTO gone_{table.name} {new} SELECT {keys} FROM old.{table.name} NOT INDEXED"
        f" WHERE {among} AND ({keys}) NOT IN (SELECT {keys} FROM new)"
    )


def _with_old_row(table: Table) -> str:
    return f"LEFT JOIN old.{table.name} AS was ON {_row('was', table.keys)} = {_row('new', table.keys)}"


def _differs(table: Table) -> str:
    # With the keys, or a row of NULLs would be no other than no row. The left side decides the collation: the
    # catalogue may declare one in which different texts are equal.
    return f"{_row('was', table.columns)} IS NOT {_row('new', table.columns)}"


def _row(alias: str, columns: Iterable[str]) -> str:
    return "(" + ", ".join(f"{alias}.{column}" for column in columns) + ")"


def _count(connection: sqlite3.Connection, table: Table) -> TableChanges:
    differ, updated = connection.execute(
        f"SELECT count(*), count(was.{table.keys[0]}) FROM main.{table.name} AS new {_with_old_row(table)}"
    ).fetchone()
    (deleted,) = connection.execute(f"SELECT count(*) FROM gone_{table.name}").fetchone()
    return TableChanges(differ - updated, updated, deleted)
