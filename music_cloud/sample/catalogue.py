"""Makes an authoritative catalogue such as other programs keep on a music NAS.

Invariant: the same number of songs and the same seed give the same rows, and the file appears under its name
only when it is complete: WAL mode, nothing left in the -wal. Memory does not grow with the number of songs.
What a row looks like is decided in ``songs`` and ``playlists``; how it changes later, in ``churn``.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Final

from music_cloud.sample.playlists import entry_rows, insert_backends, insert_pools, playlist_rows
from music_cloud.sample.songs import FLUSH_SONGS, SongWriter

LARGEST_CATALOGUE: Final = 5_000_000

TABLES: Final = (
    "playlists",
    "songs",
    "playlist_songs",
    "playlist_pools",
    "pool_playlists",
    "storage_backends",
    "file_assets",
    "file_locations",
)

_SCHEMA: Final = """
CREATE TABLE playlists (
    id INTEGER PRIMARY KEY,
    platform TEXT NOT NULL,
    remote_playlist_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    cover_url TEXT,
    play_count INTEGER,
    collected_song_count INTEGER
);
CREATE TABLE songs (
    id INTEGER PRIMARY KEY,
    platform TEXT NOT NULL,
    remote_song_id TEXT NOT NULL,
    name TEXT NOT NULL,
    singers TEXT,
    ext TEXT,
    file_size_bytes INTEGER,
    metadata_json TEXT
);
CREATE TABLE playlist_songs (
    playlist_id INTEGER NOT NULL,
    song_id INTEGER NOT NULL,
    position INTEGER
);
CREATE TABLE playlist_pools (
    id INTEGER PRIMARY KEY,
    platform TEXT NOT NULL,
    pool_kind TEXT NOT NULL,
    external_id TEXT NOT NULL,
    name TEXT NOT NULL,
    url TEXT,
    metadata_json TEXT
);
CREATE TABLE pool_playlists (
    pool_id INTEGER NOT NULL,
    playlist_id INTEGER NOT NULL
);
CREATE TABLE storage_backends (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    backend_type TEXT NOT NULL,
    base_path TEXT,
    config_json TEXT
);
CREATE TABLE file_assets (
    id INTEGER PRIMARY KEY,
    song_id INTEGER NOT NULL,
    quality_label TEXT,
    ext TEXT,
    file_size_bytes INTEGER
);
CREATE TABLE file_locations (
    id INTEGER PRIMARY KEY,
    file_asset_id INTEGER NOT NULL,
    backend_id INTEGER NOT NULL,
    locator TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'active',
    is_primary INTEGER NOT NULL DEFAULT 0
);
"""
# Built last, from sorted input: an index that is kept up to date row by row costs twice as much.
_INDEX: Final = "CREATE INDEX playlist_songs_by_playlist ON playlist_songs (playlist_id)"


def create_catalogue(path: Path, *, songs: int, seed: int = 1) -> None:
    """Write a new catalogue of ``songs`` songs to ``path``.

    Raises ``ValueError`` for a number of songs outside 1 to ``LARGEST_CATALOGUE``, ``FileExistsError`` when
    there is something at ``path`` already.
    """
    if not 1 <= songs <= LARGEST_CATALOGUE:
        raise ValueError(f"the number of songs must be from 1 to {LARGEST_CATALOGUE}, found {songs}")
    if path.exists():
        raise FileExistsError(f"{path} exists already; a sample catalogue never replaces a file")
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(partial, isolation_level=None)) as connection:
            _fill(connection, songs, Random(seed))
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def open_catalogue(path: Path) -> sqlite3.Connection:
    """Open an existing catalogue for writing, in autocommit mode; a missing one is not made.

    Raises ``FileNotFoundError`` when there is no file at ``path``.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no catalogue at {path}")
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None)


def count_rows(path: Path) -> dict[str, int]:
    """How many rows each of the eight tables holds."""
    with closing(open_catalogue(path)) as connection:
        return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}


def _fill(connection: sqlite3.Connection, songs: int, rng: Random) -> None:
    # No journal and no fsync while the file has no name: a crash leaves a .partial that the next run removes.
    connection.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-16384;")
    connection.executescript(_SCHEMA)
    connection.execute("BEGIN")
    insert_backends(connection)
    writer = SongWriter(connection, rng)
    for n in range(1, songs + 1):
        writer.add()
        if n % FLUSH_SONGS == 0:
            writer.flush()
    writer.flush()
    connection.executemany("INSERT INTO playlists VALUES (?, ?, ?, ?, ?, ?, ?, ?)", playlist_rows(rng, songs))
    connection.executemany("INSERT INTO playlist_songs VALUES (?, ?, ?)", entry_rows(rng, songs))
    insert_pools(connection, songs)
    connection.execute(_INDEX)
    connection.execute("COMMIT")
    # WAL is a property of the file; from here on a writer is as safe as on the real NAS.
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
