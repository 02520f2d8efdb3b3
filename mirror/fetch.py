"""Brings the database of a believed manifest into the incoming folder: downloaded, verified, not yet served.

Invariant: deltas only save bytes: what cannot be had by them is had by the keyframe, if that can do better.
After a failure nothing is left in the incoming folder. Serving it is mirror/generations.py's.
"""

from __future__ import annotations

import errno
import sqlite3
from contextlib import closing
from pathlib import Path
from threading import Lock

from contracts.errors import (
    AccessDenied,
    ContractError,
    DigestMismatchError,
    MalformedError,
    ObjectMissing,
    StoreError,
)
from contracts.manifest import Manifest
from contracts.read_model import DATABASE_NAME, verify_schema
from contracts.route import Route, plan_route
from mirror.generations import Generations, Held, open_database
from stores.base import ReadableStore
from stores.files import verify_space
from stores.progress import Progress
from stores.restore import restore_database, verify_database


class Download:
    """What one sync fetches for a mirror's folder.

    `downloaded_bytes` are those of blobs, also of blobs that were of no use; `fallback` is a sentence when
    the deltas were of none. `smoke_query`, when given, must run on the new database.
    """

    def __init__(self, generations: Generations, smoke_query: str | None, progress: Progress) -> None:
        self.downloaded_bytes = 0
        self.fallback: str | None = None
        self._generations = generations
        self._smoke_query = smoke_query
        self._progress = progress
        self._lock = Lock()  # bytes are counted from several threads

    def fetch(self, store: ReadableStore, manifest: Manifest, is_last_try: bool) -> None:
        """Bring the manifest's database into the incoming folder, verified.

        Raises:
            ObjectMissing: also before the last try, after which the pointer may have moved on.
            AccessDenied, StoreUnavailable, StoreError: as the store does.
            DigestMismatchError, MalformedError: when something is not as the manifest or the read model says.
            OSError: when the disk is full or fails.
        """
        try:
            self._restore_with_fallback(store, manifest, is_last_try)
            self._progress.begin("verify")
            self._verify_database(self._generations.incoming / DATABASE_NAME)
        except BaseException:
            self._generations.clear_incoming()
            raise

    def _restore_with_fallback(self, store: ReadableStore, manifest: Manifest, is_last_try: bool) -> None:
        """Restore from the database that is served where that downloads less, else from the keyframe; from
        the keyframe also when what is served, or a delta that the keyframe does without, is broken."""
        self.fallback = None
        held = self._generations.load_held()
        route = plan_route(manifest, held and held.database)
        try:
            self._restore(store, route, held and held.path)
        except (ContractError, StoreError, OSError) as error:
            whole = plan_route(manifest, None)
            if held is None or route.keyframe is not None or not _may_be_mended(error, is_last_try):
                raise
            # The same deltas again would fail again, and a keyframe is much to download for that.
            is_held_to_blame = isinstance(error, OSError) or not _is_intact(held)
            if len(whole.deltas) >= len(route.deltas) and not is_held_to_blame:
                raise
            self.fallback = f"the whole database was fetched, because the deltas could not be used: {error}"
            self._restore(store, whole, None)

    def _restore(self, store: ReadableStore, route: Route, held: Path | None) -> None:
        """Go this way, into an empty incoming folder."""
        folder = self._generations.prepare_incoming()
        _verify_room(self._generations.folder, route)
        self._progress.begin("download", route.stored_bytes)
        restore_database(store, route, folder / DATABASE_NAME, held, self._count)

    def _count(self, size_bytes: int) -> None:
        with self._lock:
            self.downloaded_bytes += size_bytes
        self._progress.add(size_bytes)

    def _verify_database(self, path: Path) -> None:
        """Check that what was fetched is a read model that answers queries.

        Its digest was checked already: this guards against a publisher that published something else.
        """
        try:
            with closing(open_database(path)) as connection:
                verify_schema(connection)
                if self._smoke_query is not None:
                    connection.execute(self._smoke_query).fetchone()
        except sqlite3.Error as error:
            raise MalformedError(f"the new database does not answer: {error}") from error


def _verify_room(folder: Path, route: Route) -> None:
    """Check that the disk has room for what is kept, and for what the deltas make of it in between."""
    size_bytes = max(route.start.size_bytes, route.database.size_bytes)
    verify_space(folder, size_bytes, "the new database")
    largest = max((delta.target.size_bytes for delta in route.deltas), default=0)
    if largest > size_bytes:
        try:
            verify_space(folder, largest, "a database that the deltas lead over")
        except OSError as error:  # no word on the disk: the keyframe may lead there without it
            raise MalformedError(str(error)) from error


def _is_intact(held: Held) -> bool:
    """Whether what is served is still what it was when it was adopted."""
    try:
        verify_database(held.path, held.database)
    except (DigestMismatchError, OSError):
        return False
    return True


def _may_be_mended(error: Exception, is_last_try: bool) -> bool:
    """Whether the keyframe may do what deltas could not; a network that fails or a full disk would again."""
    if isinstance(error, ObjectMissing):
        return is_last_try  # before, the pointer is read again
    if isinstance(error, OSError):
        return error.errno == errno.EIO  # what is served can no longer be read from its disk
    # Where nobody may list a bucket, S3 calls missing objects forbidden.
    return isinstance(error, AccessDenied | DigestMismatchError | MalformedError)
