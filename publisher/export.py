"""The export: one consistent read of the catalogue into a compact, read-only database.

Invariant: the files of the previous export stay as they are until the new ones are complete and on disk;
exports of the same source are byte-identical for one SQLite version. What a row holds is decided in
publisher/rows.py, how the source is read in publisher/source.py. The order in which parts of the work end
decides nothing.
"""

from __future__ import annotations

import errno
import sqlite3
import tempfile
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from contracts.digests import digest_stream
from contracts.errors import SourceError, UnsuitableStore
from contracts.manifest import SCHEMA_VERSION, Database, SnapshotManifest
from contracts.read_model import (
    APPLICATION_ID,
    DATABASE_NAME,
    INDEXES,
    PAGE_BYTES,
    TABLES,
    USER_VERSION,
)
from publisher.parallel import run_together
from publisher.remains import erase_remains
from publisher.rows import TEXT_TABLES, find_invalid_text, prepare
from publisher.source import LOCK_TIMEOUT_S, attached_source, is_disk_full
from stores.files import replace_file, sync_file, sync_folder

MANIFEST_NAME = "manifest.json"
# Filled at the same time, each part in a database of its own; the first is the export, which takes over the
# other. The playlists' entries call no Python function, so neither part waits for Python's lock; a third part
# for the files, which do call some, was no faster and cost a quarter more CPU when it was tried.
_PARTS = (
    ("catalog_playlists", "catalog_tracks", "catalog_track_files", "catalog_toplists"),
    ("catalog_playlist_tracks",),
)
_CACHE_KIB = 8 * 1024  # of each part; benchmarks/export.py: twice as much makes it no faster


class Export(NamedTuple):
    """A finished database: its digest and size, and what it holds."""

    database: Database
    snapshot: SnapshotManifest


def export_snapshot(
    source_db: Path | str,
    target_dir: Path | str,
    *,
    metadata_keys: Collection[str] | None = None,
    now: datetime | None = None,
) -> SnapshotManifest:
    """Write `target_dir/catalog_read.db` and `target_dir/manifest.json`, replacing an earlier export.

    `metadata_keys`, when given, are the only top-level keys of `metadata_json` that are kept.
    The database is replaced first: until the manifest follows, its `snapshot_id` names the older one.
    Raises:
        SourceError: when the catalogue is missing, empty, locked, corrupt or not a catalogue.
        UnsuitableStore: when the target is a store, whose pointer an export would replace.
        OSError: when the target cannot be written.
    """
    source, target = Path(source_db), Path(target_dir)
    target.mkdir(parents=True, exist_ok=True)
    if source.exists() and source.resolve() == (target / DATABASE_NAME).resolve():
        raise SourceError(f"{source}: an export into this folder would replace the catalogue itself")
    if (target / "blobs").exists() or (target / "manifests").exists():
        raise UnsuitableStore(
            f"{target} is a store that is published to; an export would replace its pointer"
        )
    with tempfile.TemporaryDirectory(prefix=".export-", dir=target) as scratch:
        database = Path(scratch, DATABASE_NAME)
        snapshot = build_database(source, database, metadata_keys=metadata_keys, now=now).snapshot
        database.replace(target / DATABASE_NAME)
        sync_folder(target)
        replace_file(target / MANIFEST_NAME, msgspec.json.format(msgspec.json.encode(snapshot), indent=2))
    return snapshot


def build_database(
    source_db: Path,
    database: Path,
    *,
    metadata_keys: Collection[str] | None = None,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    now: datetime | None = None,
) -> Export:
    """Export into the new file `database`, on disk when this returns; its folder takes temporary files.

    Raises:
        SourceError, OSError: as `export_snapshot`; `database` is then worthless.
    """
    fill_database(source_db, database, metadata_keys=metadata_keys, lock_timeout_s=lock_timeout_s)
    return seal_database(database, now=now)


def fill_database(
    source_db: Path,
    database: Path,
    *,
    metadata_keys: Collection[str] | None = None,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> None:
    """Export into the new file `database`, which may not be on disk yet. Raises: as `build_database`."""
    with _full_disk_named(), ExitStack() as undo:
        paths = [database, *(database.with_name(f"{database.name}-part{n}") for n in range(1, len(_PARTS)))]
        for path in paths[1:]:
            undo.callback(path.unlink, missing_ok=True)
        connections = [undo.enter_context(closing(_connect(path, lock_timeout_s))) for path in paths]
        for connection in connections:
            _configure(connection)
        with attached_source(connections, source_db, database.parent, lock_timeout_s) as tables:
            invalid = _find_invalid_text(connections, tables)
            tasks = [
                partial(_fill, connection, part, tables, metadata_keys, invalid)
                for connection, part in zip(connections, _PARTS, strict=True)
            ]
            run_together(*tasks, connections=connections)
        connection = connections[0]
        for path, part in zip(paths[1:], _PARTS[1:], strict=True):
            _take_over(connection, path, part)
    erase_remains(database)


def seal_database(database: Path, *, now: datetime | None = None) -> Export:
    """Put a finished database on disk, and say what it is and what it holds.

    Raises:
        OSError: when the disk does not take it.
    """
    with ThreadPoolExecutor(1) as disk, database.open("rb") as stream:
        synced = disk.submit(sync_file, database)
        digest = digest_stream(stream)
        synced.result()
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        playlists, tracks, files, covers = connection.execute(
            "SELECT (SELECT count(*) FROM catalog_playlists), (SELECT count(*) FROM catalog_tracks),"
            " (SELECT count(*) FROM catalog_track_files),"
            " (SELECT count(*) FROM catalog_playlists WHERE cover_url <> '')"
        ).fetchone()
    moment = now or datetime.now(UTC)
    return Export(
        Database(digest, database.stat().st_size),
        SnapshotManifest(
            snapshot_id=f"snap-playlists-{playlists}-tracks-{tracks}-{digest[:12]}",
            generated_at=moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            schema_version=SCHEMA_VERSION,
            playlist_count=playlists,
            track_count=tracks,
            file_count=files,
            cover_count=covers,
        ),
    )


@contextmanager
def _full_disk_named() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if not is_disk_full(error):
            raise
        full = "the disk is full that holds the export, or the one that holds temporary files"
        raise OSError(errno.ENOSPC, full) from error


def _find_invalid_text(connections: Sequence[sqlite3.Connection], tables: Collection[str]) -> set[str]:
    """As `find_invalid_text`, of half of the text on each connection."""
    invalid: set[str] = set()

    def find(connection: sqlite3.Connection, share: frozenset[str]) -> None:
        invalid.update(find_invalid_text(connection, share))

    first = frozenset({"songs", "playlists"})
    second = TEXT_TABLES.intersection(tables) - first
    run_together(
        partial(find, connections[0], first), partial(find, connections[1], second), connections=connections
    )
    return invalid


def _fill(
    connection: sqlite3.Connection,
    part: Sequence[str],
    tables: Collection[str],
    metadata_keys: Collection[str] | None,
    invalid: Collection[str],
) -> None:
    """Fill one part's tables from the attached source, which has `tables`, and index them."""
    for name, query in prepare(connection, tables, part, metadata_keys, invalid).items():
        connection.execute(f"INSERT INTO {name} {query}")
    connection.execute("COMMIT")
    _index(connection, part)


def _take_over(connection: sqlite3.Connection, path: Path, part: Sequence[str]) -> None:
    """Copy one part's tables and indexes from where they were filled.

    With the same indexes on both sides and nothing chosen, SQLite copies entries without sorting or decoding
    them: xferOptimization in https://www.sqlite.org/src/file/src/insert.c
    """
    _index(connection, part)
    connection.execute("ATTACH ? AS part", (path.resolve().as_uri(),))
    for name in part:
        connection.execute(f"INSERT INTO {name} SELECT * FROM part.{name}")
    connection.execute("DETACH part")


def _index(connection: sqlite3.Connection, part: Sequence[str]) -> None:
    for statement in INDEXES.values():
        if any(f" ON {name}(" in statement for name in part):
            connection.execute(statement)


def _connect(database: Path, lock_timeout_s: float) -> sqlite3.Connection:
    # As a URI, so that the source can be attached by one; each works in a thread of its own.
    return sqlite3.connect(
        database, uri=True, isolation_level=None, timeout=lock_timeout_s, check_same_thread=False
    )


def _configure(connection: sqlite3.Connection) -> None:
    """Settings that decide the file's bytes, or that a file nobody reads yet can afford."""
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
    connection.execute("PRAGMA encoding='UTF-8'")
    connection.execute("PRAGMA auto_vacuum=NONE")
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={USER_VERSION}")
    connection.execute("PRAGMA journal_mode=OFF")
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA temp_store=FILE")
    connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
    connection.execute(f"PRAGMA temp.cache_size=-{_CACHE_KIB}")
    forbid_remains(connection)
    for statement in TABLES.values():
        connection.execute(statement)


def forbid_remains(connection: sqlite3.Connection) -> None:
    """Make deleted rows unreadable; every connection that writes a public database calls this.

    Raises:
        SourceError: when this build of SQLite does not obey.
    """
    if connection.execute("PRAGMA secure_delete=ON").fetchone() != (1,):
        raise SourceError("this build of SQLite cannot overwrite deleted rows (secure_delete)")
