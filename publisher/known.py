"""What a refresh remembers for the next one of the same database, so that less has to be computed again.

Invariant: it makes a refresh faster and decides nothing. A handle is a digest, in part of the id of the
file's asset, which is not public: beside a database lies a file that says with which asset each handle was
made. Where asset, song and size are the same, so is the handle.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from publisher.rows import Selection
from stores.files import clone_file

# A handle is made of these as they are stored. A column of integers (SQLite, "Determination Of Column
# Affinity") stores no number that is written in another way, so that equal numbers make equal handles.
_WHOLE_NUMBERS = {"file_locations": ("id",), "file_assets": ("id", "song_id", "file_size_bytes")}
# When a handle needs no second look.
SAME_HANDLE = (
    "known.asset_id IS file_assets.id AND was.song_id IS file_assets.song_id"
    " AND was.file_size_bytes IS file_assets.file_size_bytes AND was.public_url IS NULL"
)
WITH_ASSETS = " LEFT JOIN known.assets AS known ON known.location_id = file_locations.id"
_TABLE = "assets(location_id INTEGER PRIMARY KEY, asset_id INTEGER NOT NULL)"


class Known(NamedTuple):
    """What was public is so still while `settings` are these; `assets`, if it can be had, is that file."""

    settings: str | None = None
    assets: Path | None = None


NOTHING_KNOWN = Known()


def attach_assets(connection: sqlite3.Connection, assets: Path | None) -> None:
    """Attach what is known as `known`; nothing is when `assets` is None."""
    name = ":memory:" if assets is None else f"{assets.resolve().as_uri()}?mode=ro"
    connection.execute("ATTACH ? AS known", (name,))
    if assets is None:
        connection.execute(f"CREATE TABLE known.{_TABLE}")


def has_whole_numbers(connection: sqlite3.Connection) -> bool:
    """Whether the catalogue attached as `source` stores what a handle is made of as whole numbers."""
    for table, columns in _WHOLE_NUMBERS.items():
        types = dict(
            connection.execute(
                "SELECT lower(name), upper(type) FROM pragma_table_info(?, 'source')", (table,)
            )
        )
        if not all("INT" in types.get(column, "") for column in columns):
            return False
    return True


def is_known(connection: sqlite3.Connection, files: Selection, changed: str) -> bool:
    """Whether the file attached as `known` says of the locations `changed` what it would say if written anew.

    A file whose song is missing, for one, is looked at by every refresh, and is as it was.
    Raises:
        sqlite3.Error: when one of them cannot be read.
    """
    new = connection.execute(f"{_assets(files)} AND file_locations.id IN ({changed}) ORDER BY 1")
    old = connection.execute(
        f"SELECT location_id, asset_id FROM known.assets WHERE location_id IN ({changed}) ORDER BY 1"
    )
    return all(one == other for one, other in zip_longest(old, new))


def _assets(files: Selection) -> str:
    return (
        f"SELECT file_locations.id, file_assets.id FROM {files.tables} WHERE {files.condition}"
        " AND backends.base_url IS NULL AND typeof(file_assets.file_size_bytes) IN ('integer', 'null')"
    )


def write_assets(
    connection: sqlite3.Connection, files: Selection, changed: str, known: Path | None, target: Path
) -> None:
    """Write the new file `target` for the database after a refresh; not forced to disk.

    `changed` is a query of the locations whose row may have changed since `known` was written; without that
    file every location is written.
    Raises:
        sqlite3.Error, OSError: when one of them cannot be read, or the new one not be written.
    """
    among = "true"
    if known is not None:
        clone_file(known, target)
        among = f"file_locations.id IN ({changed})"
    rows = connection.execute(f"{_assets(files)} AND {among}")
    with closing(sqlite3.connect(target, isolation_level=None)) as assets:
        assets.execute("PRAGMA journal_mode=OFF")
        assets.execute("PRAGMA synchronous=OFF")
        assets.execute(f"CREATE TABLE IF NOT EXISTS {_TABLE}")
        assets.execute("BEGIN")
        assets.executemany("DELETE FROM assets WHERE location_id = ?", connection.execute(changed))
        assets.executemany("INSERT INTO assets VALUES (?, ?)", rows)
        assets.execute("COMMIT")
