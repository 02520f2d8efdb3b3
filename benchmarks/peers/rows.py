"""The rows in which two databases of the read model differ: to check results, and as a delta of rows.

It finds them by its own means, not by those of publisher/refresh.py, which it is a witness of.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from contracts.read_model import TABLES
from contracts.zstd_api import zstd

_LIST_LEVEL = 19  # the best of zstd's usual ones


@contextmanager
def opened_differences(old: Path, new: Path, *, mode: str = "ro") -> Iterator[sqlite3.Connection]:
    """A connection to `old` with the temporary tables `put_TABLE`, rows that are new or other in `new`, and
    `gone_TABLE`, keys of rows that it lacks."""
    uri = f"{old.resolve().as_uri()}?mode={mode}"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        collect_differences(connection, new)
        yield connection


def collect_differences(connection: sqlite3.Connection, new: Path) -> None:
    """Make the temporary tables of `opened_differences` on a connection to the older database."""
    connection.execute("ATTACH ? AS new", (f"{new.resolve().as_uri()}?mode=ro",))
    for name in TABLES:
        keys, columns = _keys(connection, name), _columns(connection, name)
        same_key = " AND ".join(f"was.{key} = new.{key}" for key in keys)
        connection.execute(
            f"CREATE TEMP TABLE put_{name} AS SELECT new.* FROM new.{name} AS new NOT INDEXED"
            f" LEFT JOIN main.{name} AS was ON {same_key}"
            f" WHERE ({_listed('was', columns)}) IS NOT ({_listed('new', columns)})"
        )
        connection.execute(
            f"CREATE TEMP TABLE gone_{name} AS SELECT {_listed('was', keys)}"
            f" FROM main.{name} AS was NOT INDEXED LEFT JOIN new.{name} AS new ON {same_key}"
            f" WHERE new.{keys[0]} IS NULL"
        )
    connection.execute("DETACH new")


def apply_differences(connection: sqlite3.Connection) -> None:
    """Make the older database equal to the newer, row by row, in one transaction; deletions come first."""
    connection.execute("BEGIN")
    for name in TABLES:
        keys = _keys(connection, name)
        values = [column for column in _columns(connection, name) if column not in keys]
        listed = ", ".join(keys)
        connection.execute(f"DELETE FROM main.{name} WHERE ({listed}) IN (SELECT * FROM gone_{name})")
        connection.execute(
            f"INSERT INTO main.{name} SELECT * FROM put_{name} WHERE true ORDER BY {listed}"
            f" ON CONFLICT({listed}) DO UPDATE SET {', '.join(f'{v} = excluded.{v}' for v in values)}"
        )
    connection.execute("COMMIT")


def verify_equal_rows(first: Path, second: Path) -> None:
    """Raises: RuntimeError, when a row is in one of them only."""
    with opened_differences(first, second) as connection:
        for name in TABLES:
            for kind in ("put", "gone"):
                (count,) = connection.execute(f"SELECT count(*) FROM {kind}_{name}").fetchone()
                if count:
                    raise RuntimeError(f"{count} rows of {name} in {first} are not as in {second}")


def listed_rows_bytes(old: Path, new: Path) -> int:
    """The size of a plain list of all changed rows and deleted keys, compressed by zstd as one.

    It says how little there is to say, but is no lower bound: it knows nothing of the old rows, whose values
    a delta of pages can refer to, and lists every entry that a playlist moved by one place.
    """
    encode = msgspec.msgpack.encode
    with opened_differences(old, new) as connection:
        listed = b"".join(
            encode(row)
            for name in TABLES
            for kind in ("gone", "put")
            for row in connection.execute(f"SELECT * FROM {kind}_{name}")
        )
    return len(zstd.compress(listed, _LIST_LEVEL))


def _columns(connection: sqlite3.Connection, name: str) -> list[str]:
    return [row[0] for row in connection.execute("SELECT name FROM pragma_table_info(?)", (name,))]


def _keys(connection: sqlite3.Connection, name: str) -> list[str]:
    statement = "SELECT name FROM pragma_table_info(?) WHERE pk ORDER BY pk"
    return [row[0] for row in connection.execute(statement, (name,))]


def _listed(alias: str, columns: list[str]) -> str:
    return ", ".join(f"{alias}.{column}" for column in columns)
