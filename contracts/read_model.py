"""The read model: the exact schema of the public database, and how a reader recognises it.

Invariant: a database is ours when its application id, its user version and the text of every entry of its
schema are exactly those below; anything else (a trigger, a view, a virtual table) is not opened for use.
Identity of rows is chosen so that a change in the source moves few pages: `docs/format.md`, "Row identity".
"""

from __future__ import annotations

import sqlite3
from functools import cache

from contracts.errors import MalformedError

DATABASE_NAME = "catalog_read.db"
APPLICATION_ID = 0x4D435244  # "MCRD": music catalogue, read
USER_VERSION = 1
PAGE_BYTES = 4096  # SQLite's default, and the unit of a delta (docs/format.md, "Page delta")

TABLES = {
    "catalog_playlists": """CREATE TABLE catalog_playlists(
  playlist_id INTEGER PRIMARY KEY,
  platform TEXT,
  remote_playlist_id TEXT,
  name TEXT,
  description TEXT,
  cover_url TEXT,
  play_count INTEGER NOT NULL DEFAULT 0,
  song_count INTEGER NOT NULL DEFAULT 0
)""",
    "catalog_tracks": """CREATE TABLE catalog_tracks(
  song_id INTEGER PRIMARY KEY,
  platform TEXT,
  remote_song_id TEXT,
  name TEXT,
  singers TEXT,
  ext TEXT,
  file_size_bytes INTEGER,
  metadata_json TEXT
)""",
    "catalog_playlist_tracks": """CREATE TABLE catalog_playlist_tracks(
  playlist_id INTEGER NOT NULL,
  ordinal INTEGER NOT NULL,
  song_id INTEGER NOT NULL,
  position INTEGER,
  PRIMARY KEY(playlist_id, ordinal)
) WITHOUT ROWID""",
    "catalog_track_files": """CREATE TABLE catalog_track_files(
  location_id INTEGER PRIMARY KEY,
  song_id INTEGER NOT NULL,
  quality_label TEXT,
  ext TEXT,
  file_size_bytes INTEGER,
  backend_type TEXT,
  backend_name TEXT,
  locator TEXT NOT NULL,
  public_url TEXT,
  status TEXT NOT NULL,
  is_primary INTEGER NOT NULL DEFAULT 0
)""",
    "catalog_toplists": """CREATE TABLE catalog_toplists(
  toplist_id TEXT NOT NULL,
  playlist_id INTEGER NOT NULL,
  platform TEXT NOT NULL,
  name TEXT,
  description TEXT,
  cover_url TEXT,
  play_count INTEGER NOT NULL DEFAULT 0,
  song_count INTEGER NOT NULL DEFAULT 0,
  group_name TEXT,
  PRIMARY KEY(platform, toplist_id, playlist_id)
) WITHOUT ROWID""",
}
INDEXES = {
    "catalog_tracks_by_remote_id": (
        "CREATE INDEX catalog_tracks_by_remote_id ON catalog_tracks(platform, remote_song_id)"
    ),
    "catalog_track_files_by_song": (
        "CREATE INDEX catalog_track_files_by_song ON catalog_track_files(song_id)"
    ),
}


@cache
def _expected_schema() -> frozenset[tuple[str, str, str, str | None]]:
    """The entries that SQLite itself makes of the statements above, implied indexes included."""
    connection = sqlite3.connect(":memory:")
    try:
        for statement in (*TABLES.values(), *INDEXES.values()):
            connection.execute(statement)
        return frozenset(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))
    finally:
        connection.close()


def verify_schema(connection: sqlite3.Connection) -> None:
    """Check that an open database is a read model, before any statement of its own schema runs.

    Raises:
        MalformedError: naming what is foreign or missing, or that the file is not a database at all.
    """
    try:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (user_version,) = connection.execute("PRAGMA user_version").fetchone()
        found = frozenset(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))
    except sqlite3.DatabaseError as error:
        raise MalformedError(f"the database cannot be read: {error}") from error
    if (application_id, user_version) != (APPLICATION_ID, USER_VERSION):
        raise MalformedError(
            f"the database has application id {application_id:#x} and user version {user_version}, "
            f"expected {APPLICATION_ID:#x} and {USER_VERSION}"
        )
    expected = _expected_schema()
    foreign = sorted(f"{entry[0]} {entry[1]}" for entry in found - expected)
    missing = sorted(f"{entry[0]} {entry[1]}" for entry in expected - found)
    if foreign or missing:
        raise MalformedError(
            "the database's schema is not the read model's"
            + (f"; foreign or changed: {', '.join(foreign)[:200]}" if foreign else "")
            + (f"; missing: {', '.join(missing)[:200]}" if missing else "")
        )
