"""Checks a finished database before it is uploaded: it is whole, exactly a read model, and answers.

Invariant: the file is only read, with nothing of its own schema trusted. Which places it must not name is
publisher/proof/places.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from contracts.errors import MalformedError
from contracts.manifest import SnapshotManifest
from contracts.read_model import verify_schema
from publisher.parallel import run_together

_ANEW = "nothing was uploaded: run publish again, and with --rebuild when that does not help"
_SMOKE_ROWS = 20  # of each kind: enough to walk through every table and index
_SMOKE_ENTRIES = 500  # of each of those playlists

# The public queries (docs/format.md, "The read model"), each with the rows that it must find by an index.
_PLAYLISTS = (
    "SELECT playlist_id, name, cover_url, song_count FROM catalog_playlists ORDER BY playlist_id LIMIT ?"
)
_ENTRIES = (
    "SELECT ordinal, song_id FROM catalog_playlist_tracks WHERE playlist_id = ? ORDER BY ordinal LIMIT ?"
)
_TRACKS = (
    "SELECT entry.ordinal, track.song_id, track.name, track.singers FROM catalog_playlist_tracks AS entry"
    " CROSS JOIN catalog_tracks AS track USING (song_id)"
    " WHERE entry.playlist_id = ? ORDER BY entry.ordinal LIMIT ?"
)
_FILES = "SELECT location_id, locator, public_url, status FROM catalog_track_files WHERE song_id = ?"
_BY_REMOTE_ID = "SELECT song_id FROM catalog_tracks WHERE platform = ? AND remote_song_id = ?"
_TOPLISTS = (
    "SELECT toplist.platform, toplist_id, playlist_id, playlist.name FROM catalog_toplists AS toplist"
    " CROSS JOIN catalog_playlists AS playlist USING (playlist_id) LIMIT ?"
)
_INDEXED = {_ENTRIES: 2, _TRACKS: 2, _FILES: 1, _BY_REMOTE_ID: 2}  # and how many parameters each has


def verify_database_file(
    path: Path, snapshot: SnapshotManifest, *, is_thorough: bool, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Check a database file; `is_thorough` compares every index with its table, too.

    `meanwhile` runs beside it, as a core is free.
    Raises:
        MalformedError: when it is damaged, has another schema, holds fewer rows than `snapshot` says, or a
            public query does not answer as it should.
    """
    with _opened(path) as connection:
        with _unusable():
            verify_schema(connection)

        def verify() -> None:
            with _unusable():
                _verify_pages(connection, is_thorough=is_thorough)
                _verify_queries(connection, snapshot)

        run_together(meanwhile, verify, connections=[connection])


def verify_integrity(path: Path) -> None:
    """Check a database file whose rows were checked when it was published, this time with every index.

    Raises:
        MalformedError: when it is damaged, or has another schema.
    """
    with _opened(path) as connection, _unusable():
        verify_schema(connection)
        _verify_pages(connection, is_thorough=True)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)) as connection:
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
        yield connection


@contextmanager
def _unusable() -> Iterator[None]:
    """Say of a database that cannot be published what is to be done."""
    try:
        yield
    except (MalformedError, sqlite3.DatabaseError) as error:
        raise MalformedError(f"the new database is not fit to be published ({error}); {_ANEW}") from error


def _verify_pages(connection: sqlite3.Connection, *, is_thorough: bool) -> None:
    pragma = "integrity_check" if is_thorough else "quick_check"
    (found,) = connection.execute(f"PRAGMA {pragma}(1)").fetchone()
    if found != "ok":
        raise MalformedError(f"{pragma}: {' '.join(found.split())[:200]}")


def _verify_queries(connection: sqlite3.Connection, snapshot: SnapshotManifest) -> None:
    for query, parameters in _INDEXED.items():
        _verify_plan(connection, query, parameters)
    playlists = connection.execute(_PLAYLISTS, (_SMOKE_ROWS,)).fetchall()
    _verify_count("playlists", playlists, snapshot.playlist_count)
    for playlist_id, *_ in playlists:
        entries = connection.execute(_ENTRIES, (playlist_id, _SMOKE_ENTRIES)).fetchall()
        tracks = connection.execute(_TRACKS, (playlist_id, _SMOKE_ENTRIES)).fetchall()
        numbered = [(number, song_id) for number, (_, song_id) in enumerate(entries, 1)]
        if not entries == numbered == [track[:2] for track in tracks]:
            raise MalformedError(f"playlist {playlist_id} does not have its tracks in order")
    tracks = connection.execute(
        "SELECT song_id, platform, remote_song_id FROM catalog_tracks ORDER BY song_id LIMIT ?",
        (_SMOKE_ROWS,),
    ).fetchall()
    _verify_count("tracks", tracks, snapshot.track_count)
    for song_id, platform, remote_id in tracks:
        named = None not in (platform, remote_id)
        if named and (song_id,) not in connection.execute(_BY_REMOTE_ID, (platform, remote_id)).fetchall():
            raise MalformedError(f"track {song_id} is not found by its platform and remote id")
    files = connection.execute(
        "SELECT location_id, song_id FROM catalog_track_files ORDER BY location_id LIMIT ?", (_SMOKE_ROWS,)
    ).fetchall()
    _verify_count("files", files, snapshot.file_count)
    for location_id, song_id in files:
        if location_id not in [found[0] for found in connection.execute(_FILES, (song_id,))]:
            raise MalformedError(f"file {location_id} is not found by its track")
    connection.execute(_TOPLISTS, (_SMOKE_ROWS,)).fetchall()


def _verify_plan(connection: sqlite3.Connection, query: str, parameters: int) -> None:
    """Check that a query goes by an index: https://www.sqlite.org/eqp.html"""
    for *_, detail in connection.execute(f"EXPLAIN QUERY PLAN {query}", (0,) * parameters):
        if not detail.startswith("SEARCH "):
            raise MalformedError(f"a public query does not use an index: {detail}")


def _verify_count(what: str, rows: Sequence[object], count: int) -> None:
    if len(rows) != min(count, _SMOKE_ROWS):
        raise MalformedError(f"{len(rows)} of {count} {what} can be read")
