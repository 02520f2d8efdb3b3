"""The refresh: an earlier export brought to the state of the catalogue, one differing row at a time.

Invariant: afterwards every table holds the rows of a fresh export, and no statement has touched a row that
was as it should be: what no difference moves keeps its bytes, and a file without a difference is not even
opened for writing. So few pages change, and a delta of them is small.
The differences are first collected beside the database, which is only read, and then applied to it. What a
row holds is decided in publisher/rows.py; the caller makes the copy and puts it on disk.
"""

from __future__ import annotations

import errno
import sqlite3
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from contracts.errors import MalformedError
from contracts.read_model import PAGE_BYTES, TABLES, verify_schema
from publisher.backends import fingerprint_settings
from publisher.entries import collect_entries
from publisher.export import forbid_remains
from publisher.parallel import run_together
from publisher.rows import TEXT_TABLES, define, define_existing_ids, find_invalid_text, is_available, select
from publisher.source import LOCK_TIMEOUT_S, attached_source, is_disk_full
from publisher.suspects import SUSPECTED_TABLES, find_suspects

# Compared at the same time; three, so that two cores are busy whichever takes longest. Mostly the files call
# Python functions, for their handles, so hardly any part waits for Python's lock.
_PARTS = (
    ("catalog_track_files",),
    ("catalog_playlist_tracks",),
    ("catalog_tracks", "catalog_playlists", "catalog_toplists"),
)
_SMALL_TEXT_TABLES = frozenset({"playlists", "playlist_pools"})
_CACHE_KIB = 8 * 1024  # of each database of each part; benchmarks/refresh.py: more makes it no faster


class TableChanges(NamedTuple):
    """How many rows of one table were not as in the catalogue."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0


class RefreshResult(NamedTuple):
    """What a refresh changed in each table of the read model.

    `settings`: what the next refresh of this database is given as `known_settings`.
    """

    tables: dict[str, TableChanges]
    settings: str | None = None

    @property
    def is_changed(self) -> bool:
        return any(map(any, self.tables.values()))


class _Table(NamedTuple):
    """The columns of a table of the read model: all, those of its key, and the others."""

    name: str
    columns: list[str]
    keys: list[str]
    values: list[str]


def refresh_database(
    source_db: Path,
    database: Path,
    *,
    metadata_keys: Collection[str] | None = None,
    known_settings: str | None = None,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> RefreshResult:
    """Bring `database`, a private copy of an earlier export, to the state of the catalogue.

    `known_settings` is what the refresh that made `database` has returned as `settings`, also when it changed
    nothing: while they are the same, what was public then still is. Without it every row is looked at again,
    which takes longer and gives the same.
    The folder of `database` takes temporary files. Nothing is forced to disk; after an error `database` is
    worthless.
    Whoever cannot trust the copy checks its digest before: damage within may show as an error of the source.
    Raises:
        MalformedError: when `database` is no read model of this version or has pages of another size: it must
            be rebuilt.
        SourceError: as `export_snapshot`.
        OSError: when the folder cannot be written, or the disk is full.
    """
    with _errors_named(database):
        tables = _verified_tables(database)
        with tempfile.TemporaryDirectory(prefix=".refresh-", dir=database.parent) as scratch:
            parts = [Path(scratch, f"part-{number}.db") for number in range(len(_PARTS))]
            result = _collect(
                source_db, database, parts, tables, metadata_keys, known_settings, lock_timeout_s
            )
            if result.is_changed:
                _apply(database, parts, tables, result)
    return result


@contextmanager
def _errors_named(database: Path) -> Iterator[None]:
    """What SQLite says and the catalogue did not cause, as one sentence."""
    try:
        yield
    except sqlite3.Error as error:
        if is_disk_full(error):
            full = "the disk is full that holds the database, or the one that holds temporary files"
            raise OSError(errno.ENOSPC, full) from error
        raise MalformedError(f"{database}: {error}; it must be rebuilt") from error


def _verified_tables(database: Path) -> dict[str, _Table]:
    with closing(_connect(database, "ro")) as connection:
        try:
            verify_schema(connection)
        except MalformedError as error:
            raise MalformedError(f"{database}: {error}; it must be rebuilt") from error
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        if page_bytes != PAGE_BYTES:
            raise MalformedError(
                f"{database}: its pages have {page_bytes} bytes, expected {PAGE_BYTES}; it must be rebuilt"
            )
        return {name: _describe(connection, name) for name in TABLES}


def _describe(connection: sqlite3.Connection, name: str) -> _Table:
    columns = connection.execute("SELECT name, pk FROM pragma_table_info(?)", (name,)).fetchall()
    return _Table(
        name,
        columns=[column for column, _ in columns],
        keys=[column for column, place in columns if place],
        values=[column for column, place in columns if not place],
    )


def _connect(database: Path, mode: str, lock_timeout_s: float = LOCK_TIMEOUT_S) -> sqlite3.Connection:
    # Those that collect work each in a thread of its own.
    connection = sqlite3.connect(
        _uri(database, mode), uri=True, isolation_level=None, timeout=lock_timeout_s, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode=OFF")
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA temp_store=FILE")
    connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
    connection.execute(f"PRAGMA temp.cache_size=-{_CACHE_KIB}")
    return connection


def _uri(database: Path, mode: str) -> str:
    return f"{database.resolve().as_uri()}?mode={mode}"


def _collect(
    source_db: Path,
    database: Path,
    parts: Sequence[Path],
    tables: dict[str, _Table],
    metadata_keys: Collection[str] | None,
    known_settings: str | None,
    lock_timeout_s: float,
) -> RefreshResult:
    """Fill new databases with the rows that differ, and with the keys of those that are gone."""
    found: dict[str, TableChanges] = {}
    settings: set[str | None] = set()
    with ExitStack() as undo:
        connections = [undo.enter_context(closing(_connect(path, "rwc", lock_timeout_s))) for path in parts]
        for connection in connections:
            connection.execute("ATTACH ? AS old", (_uri(database, "ro"),))
            connection.execute(f"PRAGMA old.cache_size=-{_CACHE_KIB}")
        with attached_source(connections, source_db, parts[0].parent, lock_timeout_s) as present:

            def collect(connection: sqlite3.Connection, wanted: Collection[str]) -> None:
                backends = define(connection, present, metadata_keys)
                own_settings = fingerprint_settings(backends, metadata_keys)
                settings.add(own_settings)
                kept = own_settings is not None and own_settings == known_settings
                for name in wanted:
                    table = tables[name]
                    connection.execute(TABLES[name])
                    connection.execute(
                        f"CREATE TABLE gone_{name} AS SELECT {', '.join(table.keys)} FROM old.{name} LIMIT 0"
                    )
                    _compare(connection, table, present, settings_kept=kept)
                    found[name] = _count(connection, table)
                connection.execute("COMMIT")

            tasks = [
                partial(collect, connection, wanted)
                for connection, wanted in zip(connections, _PARTS, strict=True)
            ]
            run_together(*tasks, connections=connections)
    return RefreshResult({name: found[name] for name in TABLES}, settings.pop())


def _compare(
    connection: sqlite3.Connection, table: _Table, present: Collection[str], *, settings_kept: bool
) -> None:
    """Collect the differences of a table, given the tables that the catalogue has."""
    if not is_available(table.name, present):
        # What an older catalogue cannot fill is empty.
        _compare_rows(connection, table, f"SELECT * FROM old.{table.name} LIMIT 0")
    elif table.name == "catalog_playlist_tracks":
        define_existing_ids(connection)
        collect_entries(connection)
    elif table.name in SUSPECTED_TABLES:
        suspects = find_suspects(connection, table.name, settings_kept=settings_kept)
        # They are few: each text is repaired, whether it needs it or not.
        _compare_rows(connection, table, select(table.name, TEXT_TABLES).query, suspects)
    else:
        invalid = find_invalid_text(connection, _SMALL_TEXT_TABLES.intersection(present))
        _compare_rows(connection, table, select(table.name, invalid).query)


def _compare_rows(
    connection: sqlite3.Connection, table: _Table, query: str, suspects: str | None = None
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


def _with_old_row(table: _Table) -> str:
    return f"LEFT JOIN old.{table.name} AS was ON {_row('was', table.keys)} = {_row('new', table.keys)}"


def _differs(table: _Table) -> str:
    # With the keys, or a row of NULLs would be no other than no row. The left side decides the collation: the
    # catalogue may declare one in which different texts are equal.
    return f"{_row('was', table.columns)} IS NOT {_row('new', table.columns)}"


def _row(alias: str, columns: Iterable[str]) -> str:
    return "(" + ", ".join(f"{alias}.{column}" for column in columns) + ")"


def _count(connection: sqlite3.Connection, table: _Table) -> TableChanges:
    differ, updated = connection.execute(
        f"SELECT count(*), count(was.{table.keys[0]}) FROM main.{table.name} AS new {_with_old_row(table)}"
    ).fetchone()
    (deleted,) = connection.execute(f"SELECT count(*) FROM gone_{table.name}").fetchone()
    return TableChanges(differ - updated, updated, deleted)


def _apply(database: Path, parts: Sequence[Path], tables: dict[str, _Table], result: RefreshResult) -> None:
    """Write what was collected to the database."""
    with closing(_connect(database, "rw")) as connection:
        forbid_remains(connection)
        for number, path in enumerate(parts):
            connection.execute(f"ATTACH ? AS part_{number}", (_uri(path, "ro"),))
        connection.execute("BEGIN")
        for number, names in enumerate(_PARTS):
            for name in names:
                if any(result.tables[name]):
                    _apply_to_table(connection, tables[name], f"part_{number}")
        connection.execute("COMMIT")


def _apply_to_table(connection: sqlite3.Connection, table: _Table, part: str) -> None:
    """Write the differences of one table, deletions first, so that new rows find room."""
    name, keys = table.name, ", ".join(table.keys)
    assigned = ", ".join(f"{column} = excluded.{column}" for column in table.values)
    connection.execute(f"DELETE FROM main.{name} WHERE ({keys}) IN (SELECT {keys} FROM {part}.gone_{name})")
    connection.execute(
        f"INSERT INTO main.{name} SELECT * FROM {part}.{name} WHERE true"
        f" ON CONFLICT({keys}) DO UPDATE SET {assigned}"
    )
