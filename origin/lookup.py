"""What the authoritative catalogue says of a handle: where its file is, what song it is; read-only queries.

Invariant: not a byte of the catalogue is written, no lock of ours outlives a query, and no answer is
remembered here: a location that was deleted, moved or deactivated is gone at the next lookup, and so is a
catalogue that was replaced, because every lookup asks whether the file is still the one that was opened.
Connections are kept while there are requests (a new one for each would make a lookup ten times dearer:
benchmarks/origin_portable.py) and closed soon after, so that nothing keeps a replaced file alive or the
writer from tidying its WAL. Windows cannot replace an open file: there nothing is kept.
Runs in worker threads; how long a request waits for one is for `origin.files` to say.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from contracts.handles import Handle, format_handle
from origin.locators import Location
from origin.roots import ON_WINDOWS, LocatorRefused

LOOKUP_LIMIT_S = 0.25  # Design: a player's first byte must not wait for another program's transaction.
_BUSY_S = 0.8 * LOOKUP_LIMIT_S  # So that SQLite says why before anybody gives up on the thread.

_TABLES = ("file_locations", "file_assets", "storage_backends")
# Text as blobs: a name on a disk need not be UTF-8, and one that is not must still be found.
_BACKEND = "CAST(storage_backends.name AS BLOB), CAST(backend_type AS BLOB), CAST(base_path AS BLOB)"
_BY_ID = f"""
    SELECT file_locations.id, song_id, file_assets.id, file_assets.file_size_bytes,
        CAST(locator AS BLOB), {_BACKEND}
    FROM file_locations
    JOIN file_assets ON file_assets.id = file_asset_id
    JOIN storage_backends ON storage_backends.id = backend_id
    WHERE file_locations.id = ? AND status = 'active' AND song_id IN (SELECT id FROM songs)"""
_SONG_BY_ID = """
    SELECT file_locations.id, song_id, file_assets.id, file_assets.file_size_bytes,
        CAST(songs.name AS BLOB), CAST(singers AS BLOB), CAST(metadata_json AS BLOB)
    FROM file_locations
    JOIN file_assets ON file_assets.id = file_asset_id
    JOIN songs ON songs.id = song_id
    WHERE file_locations.id = ? AND status = 'active'"""


class Song(NamedTuple):
    """What a listener is told of a track; each is "" where the catalogue does not know it."""

    name: str
    singers: str
    metadata_json: str


class _Kept(NamedTuple):
    """A connection, and the device and inode of the file that was at the path just before it was opened."""

    connection: sqlite3.Connection
    identity: tuple[int, int]


class CatalogueUnavailable(Exception):
    """The catalogue is missing, busy or not readable now; its text is for the operator's log."""


class Catalogue:
    """The catalogue at a path, whatever is there at the moment of a query. Safe to use from many threads."""

    def __init__(self, db_path: Path) -> None:
        self.db_path = db_path
        self._idle: list[_Kept] = []
        self._used = False

    def find_location(self, handle: Handle) -> Location:
        """The active location that a handle names.

        Raises:
            LocatorRefused: there is none, or the id belongs to something else than when the handle was made.
            CatalogueUnavailable: nobody knows.
        """
        with self._connection() as connection:
            row = connection.execute(_BY_ID, (handle.location_id,)).fetchone()
        if row is None or format_handle(*row[:4]) != f"loc:{handle.location_id}.{handle.check}":
            raise LocatorRefused("the catalogue has no such location")
        locator, name, backend_type, base_path = map(_text, row[4:])
        return Location(name, backend_type, base_path, locator)

    def find_song(self, handle: Handle) -> Song:
        """The song that the location of a handle belongs to.

        Raises:
            LocatorRefused: there is none, or the id belongs to something else than when the handle was made.
            CatalogueUnavailable: nobody knows.
        """
        with self._connection() as connection:
            row = connection.execute(_SONG_BY_ID, (handle.location_id,)).fetchone()
        if row is None or format_handle(*row[:4]) != f"loc:{handle.location_id}.{handle.check}":
            raise LocatorRefused("the catalogue has no such location")
        # For people, not for a disk: bytes that are no UTF-8 need not survive.
        name, singers, metadata_json = (bytes(stored or b"").decode("utf-8", "replace") for stored in row[4:])
        return Song(name, singers, metadata_json)

    def find_backends(self) -> list[tuple[str, str, str]]:
        """Name, type and `base_path` of every backend.

        Raises:
            CatalogueUnavailable: nobody knows.
        """
        with self._connection() as connection:
            rows = connection.execute(f"SELECT {_BACKEND} FROM storage_backends ORDER BY id").fetchall()
        return [
            (_text(name), _text(backend_type), _text(base_path)) for name, backend_type, base_path in rows
        ]

    def close_unused(self) -> bool:
        """Close every connection if none was used since the last call; tells whether any is left."""
        if self._used:
            self._used = False
            return True
        self.close()
        return False

    def close(self) -> None:
        """Close every connection that is not being used now."""
        while self._idle:
            # Another thread may take the last one in between; that one is then in use.
            with suppress(IndexError):
                self._idle.pop().connection.close()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A connection to what is at the path now, which no other thread uses.

        Raises:
            LocatorRefused: an older catalogue, without the tables that locate files.
            CatalogueUnavailable: for any other error of SQLite, or when there is no file.
        """
        self._used = True
        kept: _Kept | None = None
        try:
            kept = self._take()
            yield kept.connection
        except sqlite3.Error as error:
            if kept is not None:
                kept.connection.close()
            if any(f"no such table: {table}" in str(error) for table in _TABLES):
                raise LocatorRefused("the catalogue locates no files") from None
            reason = getattr(error, "sqlite_errorname", type(error).__name__)
            raise CatalogueUnavailable(f"the catalogue cannot be read: {error} ({reason})") from None
        except OSError as error:
            raise CatalogueUnavailable(f"the catalogue is not there: {error.strerror}") from None
        if ON_WINDOWS:
            kept.connection.close()
        else:
            self._idle.append(kept)

    def _take(self) -> _Kept:
        status = self.db_path.stat()
        identity = (status.st_dev, status.st_ino)
        while True:
            try:
                kept = self._idle.pop()
            except IndexError:
                break
            # While it is open its inode number cannot become another file's.
            if kept.identity == identity:
                return kept
            kept.connection.close()
        uri = f"{self.db_path.as_uri()}?mode=ro"
        connection = sqlite3.connect(
            uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        return _Kept(connection, identity)


def _text(stored: bytes | None) -> str:
    """Text that goes back to the same bytes when it names a file (PEP 383)."""
    return "" if stored is None else os.fsdecode(stored)
