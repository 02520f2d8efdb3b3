"""What the publisher's tests share: catalogues written row by row, and exports read back.

A row is a dict of the columns that matter; the others are NULL. `bytes` stand for text with these bytes,
which need not be UTF-8: that is how other programs leave it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from publisher.export import export_snapshot

Row = Mapping[str, Any]
Tables = Mapping[str, Sequence[Row]]

# The source tables of the design, section 4; the last five may be missing.
SCHEMA = {
    "playlists": "id INTEGER PRIMARY KEY, platform TEXT, remote_playlist_id TEXT, name TEXT,"
    " description TEXT, cover_url TEXT, play_count INTEGER, collected_song_count INTEGER",
    "songs": "id INTEGER PRIMARY KEY, platform TEXT, remote_song_id TEXT, name TEXT, singers TEXT,"
    " ext TEXT, file_size_bytes INTEGER, metadata_json TEXT",
    "playlist_songs": "playlist_id INTEGER, song_id INTEGER, position INTEGER",
    "playlist_pools": "id INTEGER PRIMARY KEY, platform TEXT, pool_kind TEXT, external_id TEXT, name TEXT,"
    " url TEXT, metadata_json TEXT",
    "pool_playlists": "pool_id INTEGER, playlist_id INTEGER",
    "storage_backends": "id INTEGER PRIMARY KEY, name TEXT, backend_type TEXT, base_path TEXT,"
    " config_json TEXT",
    "file_assets": "id INTEGER PRIMARY KEY, song_id INTEGER, quality_label TEXT, ext TEXT,"
    " file_size_bytes INTEGER",
    "file_locations": "id INTEGER PRIMARY KEY, file_asset_id INTEGER, backend_id INTEGER, locator TEXT,"
    " status TEXT, is_primary INTEGER",
}
OPTIONAL_TABLES = tuple(SCHEMA)[3:]


def create_catalogue(
    path: Path,
    tables: Tables,
    *,
    without: Collection[str] = (),
    journal_mode: str = "wal",
    encoding: str = "UTF-8",
) -> Path:
    """A catalogue at `path` with these rows, closed cleanly."""
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA encoding='{encoding}'")
        connection.execute(f"PRAGMA journal_mode={journal_mode}")
        connection.execute("BEGIN")
        for table, columns in SCHEMA.items():
            if table not in without:
                connection.execute(f"CREATE TABLE {table}({columns})")
                insert(connection, table, tables.get(table, ()))
        connection.execute("COMMIT")
    return path


def insert(connection: sqlite3.Connection, table: str, rows: Sequence[Row]) -> None:
    """Insert rows; what is `bytes` becomes text."""
    for row in rows:
        values = ["CAST(? AS TEXT)" if isinstance(value, bytes) else "?" for value in row.values()]
        connection.execute(
            f"INSERT INTO {table}({', '.join(row)}) VALUES ({', '.join(values)})", tuple(row.values())
        )


def export(source: Path, **options: Any) -> Path:
    """Export beside the source; the path of the database."""
    target = source.parent / "snapshot"
    export_snapshot(source, target, **options)
    return target / "catalog_read.db"


def read(database: Path, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query; text that is not UTF-8 is an error."""
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def exported(tmp_path: Path, tables: Tables, query: str, **options: Any) -> list[tuple[Any, ...]]:
    """What a query finds in the export of a catalogue with these rows."""
    return read(export(create_catalogue(tmp_path / "catalogue.db", tables, **options)), query)


def one_file(
    locator: str | bytes,
    *,
    config: object = None,
    backend_type: str = "object_storage",
    size: int | None = 99,
) -> dict[str, list[dict[str, Any]]]:
    """A catalogue with one location: id 7, asset 5, song 3."""
    return {
        "songs": [{"id": 3}],
        "file_assets": [{"id": 5, "song_id": 3, "file_size_bytes": size}],
        "storage_backends": [
            {
                "id": 2,
                "name": "store",
                "backend_type": backend_type,
                "base_path": "/volume1/music",
                "config_json": config if config is None or isinstance(config, str) else json.dumps(config),
            }
        ],
        "file_locations": [
            {"id": 7, "file_asset_id": 5, "backend_id": 2, "locator": locator, "status": "active"}
        ],
    }
