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
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from contracts.errors import MalformedError
from contracts.read_model import PAGE_BYTES, TABLES, verify_schema
from publisher.differences import FILES_PART, PARTS, Comparison, Table, TableChanges
from publisher.export import forbid_remains
from publisher.known import NOTHING_KNOWN, Known, attach_assets
from publisher.parallel import run_together
from publisher.source import LOCK_TIMEOUT_S, attached_source, is_disk_full

_CACHE_KIB = 8 * 1024  # of each database of each part; benchmarks/refresh.py: more makes it no faster


class RefreshResult(NamedTuple):
    """What a refresh changed in each table of the read model, and what the next of this database is given."""

    tables: dict[str, TableChanges]
    known: Known

    @property
    def is_changed(self) -> bool:
        return any(map(any, self.tables.values()))


def refresh_database(
    source_db: Path,
    database: Path,
    *,
    metadata_keys: Collection[str] | None = None,
    known: Known = NOTHING_KNOWN,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> RefreshResult:
    """Bring `database`, a private copy of an earlier export, to the state of the catalogue.

    `known` is what the refresh that made `database` has returned, also when it changed nothing. Without it
    every row is looked at again, which takes longer and gives the same. A new file of assets lies beside
    `database`, named like it with `.assets` at the end; it replaces one that is there.
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
            parts = [Path(scratch, f"part-{number}.db") for number in range(len(PARTS))]
            result = _collect(source_db, database, parts, tables, metadata_keys, known, lock_timeout_s)
            if result.is_changed:
                _apply(database, parts, tables, result)
            assets = result.known.assets
            if assets is not None and assets != known.assets:
                beside = assets.replace(database.with_name(f"{database.name}.assets"))
                result = result._replace(known=result.known._replace(assets=beside))
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


def _verified_tables(database: Path) -> dict[str, Table]:
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


def _describe(connection: sqlite3.Connection, name: str) -> Table:
    columns = connection.execute("SELECT name, pk FROM pragma_table_info(?)", (name,)).fetchall()
    return Table(
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
    tables: dict[str, Table],
    metadata_keys: Collection[str] | None,
    known: Known,
    lock_timeout_s: float,
) -> RefreshResult:
    """Fill new databases with the rows that differ, and with the keys of those that are gone."""
    assets = parts[FILES_PART].with_name("assets")
    with ExitStack() as undo:
        connections = [undo.enter_context(closing(_connect(path, "rwc", lock_timeout_s))) for path in parts]
        for connection in connections:
            connection.execute("ATTACH ? AS old", (_uri(database, "ro"),))
            connection.execute(f"PRAGMA old.cache_size=-{_CACHE_KIB}")
        attach_assets(connections[FILES_PART], known.assets)
        with attached_source(connections, source_db, parts[0].parent, lock_timeout_s) as present:
            comparison = Comparison(tables, present, metadata_keys, known, assets)
            tasks = [
                partial(comparison.compare_part, connection, part)
                for part, connection in enumerate(connections)
            ]
            run_together(*tasks, connections=connections)
    return RefreshResult({name: comparison.changes[name] for name in TABLES}, comparison.known)


def _apply(database: Path, parts: Sequence[Path], tables: dict[str, Table], result: RefreshResult) -> None:
    """Write what was collected to the database."""
    with closing(_connect(database, "rw")) as connection:
        forbid_remains(connection)
        for number, path in enumerate(parts):
            connection.execute(f"ATTACH ? AS part_{number}", (_uri(path, "ro"),))
        connection.execute("BEGIN")
        for number, names in enumerate(PARTS):
            for name in names:
                if any(result.tables[name]):
                    _apply_to_table(connection, tables[name], f"part_{number}")
        connection.execute("COMMIT")


def _apply_to_table(connection: sqlite3.Connection, table: Table, part: str) -> None:
    """Write the differences of one table, deletions first, so that new rows find room."""
    name, keys = table.name, ", ".join(table.keys)
    assigned = ", ".join(f"{column} = excluded.{column}" for column in table.values)
    connection.execute(f"DELETE FROM main.{name} WHERE ({keys}) IN (SELECT {keys} FROM {part}.gone_{name})")
    connection.execute(
        f"INSERT INTO main.{name} SELECT * FROM {part}.{name} WHERE true"
        f" ON CONFLICT({keys}) DO UPDATE SET {assigned}"
    )
