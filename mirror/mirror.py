"""A mirror: poll the pointer, have it proven, decide, fetch, verify, swap.

Invariant: whatever fails, the generation that is served stays; what was believed is on disk before the first
byte is fetched for it, so that no restart makes the mirror believe less. Deltas only save bytes: what cannot
be had by them is had by the keyframe. Nothing of a pointer is decoded before a trusted key has signed it,
unless the mirror was told to do without. The decision is mirror/trust.py's, the swap mirror/generations.py's.
"""

from __future__ import annotations

import errno
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Literal

from msgspec.structs import replace

from contracts.digests import digest_bytes
from contracts.errors import (
    AccessDenied,
    ConflictError,
    ContractError,
    DigestMismatchError,
    MalformedError,
    ObjectMissing,
    SignatureError,
    StoreError,
)
from contracts.layout import POINTER_KEY
from contracts.manifest import MANIFEST_MAX_BYTES, Manifest
from contracts.minisign import PublicKey, parse_public_key
from contracts.read_model import DATABASE_NAME, verify_schema
from contracts.route import Route, plan_route
from mirror.generations import Current, Generations, Held, open_database
from mirror.keys import Keys, Proof
from mirror.signatures import fetch_proof
from mirror.trust import DATABASE_MAX_BYTES, Seen, verify_fresh, verify_pointer
from stores.base import ReadableStore, read_whole
from stores.files import verify_space
from stores.locks import exclusive_lock
from stores.progress import Progress
from stores.restore import restore_database, verify_database

# A blob may be deleted while an old pointer is still in a cache: ask again before raising an alarm.
_POINTER_TRIES = 3
# How old `confirmed_at` may get on disk while polls are answered "not modified"; small beside STALE_CACHE.
_CONFIRM_EVERY = timedelta(hours=1)

Outcome = Literal["updated", "renewed", "unchanged", "stale"]


@dataclass(frozen=True)
class SyncResult:
    """What a sync did: "stale" means that a cache served an older pointer, and nothing was changed.

    `downloaded_bytes` are those of blobs, also of blobs that were of no use. `fallback`, when there is one,
    says in a sentence why the deltas could not be used, so that the keyframe was fetched instead. `signed_by`
    is the id of the key that signed the newest manifest believed; None when the mirror is not told to ask.
    """

    outcome: Outcome
    current: Current
    downloaded_bytes: int
    seconds: float
    fallback: str | None = None
    signed_by: str | None = None


@dataclass
class _Download:
    """What one sync fetches; the bytes are counted from several threads."""

    downloaded_bytes: int = 0
    fallback: str | None = None
    _lock: Lock = field(default_factory=Lock)

    def add(self, size_bytes: int) -> None:
        with self._lock:
            self.downloaded_bytes += size_bytes


class Mirror:
    """A read-only copy of the catalogue in a folder.

    `store` is needed only to sync: a website that reads what another process keeps in sync leaves it out.
    Whoever syncs says whom to believe: `public_keys`, of which one must have signed (the lines `RW…` that
    `music-cloud keygen` prints), or `unsigned=True`: everybody who can write to the store or stand between.
    `smoke_query`, when given, must run on a new database before it is served.
    Raises:
        SignatureError: when there is a store, and neither of the two or both.
        MalformedError: when what should be a public key is none.
    """

    def __init__(
        self,
        target_dir: Path | str,
        store: ReadableStore | None = None,
        *,
        public_keys: Sequence[PublicKey | str] = (),
        unsigned: bool = False,
        database_max_bytes: int = DATABASE_MAX_BYTES,
        smoke_query: str | None = None,
        progress: Progress | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC).replace(microsecond=0),
    ) -> None:
        if store is not None and bool(public_keys) == unsigned:
            raise SignatureError(
                "a mirror pins the public keys of its publisher (public_keys), or says that it believes "
                "whatever the store serves (unsigned): one of the two"
            )
        self._generations = Generations(Path(target_dir))
        self._store = store
        self._pinned = [
            parse_public_key(key) if isinstance(key, str) else key for key in _as_list(public_keys)
        ]
        self._database_max_bytes = database_max_bytes
        self._smoke_query = smoke_query
        self._progress = progress or Progress()
        self._now = now

    def connect(self, *, check_same_thread: bool = True) -> sqlite3.Connection:
        """A read-only, autocommit connection to the newest generation; the caller closes it.

        It keeps its generation, whatever is synced meanwhile. Opening one costs less than a millisecond.
        Raises:
            ObjectMissing: before the first sync.
            MalformedError: when the mirror's folder is damaged.
        """
        return self._generations.connect(check_same_thread)

    def current(self) -> Current | None:
        """What is served, or None before the first sync. Raises MalformedError when that is damaged."""
        return self._generations.load_current()

    def reset_trust(self) -> None:
        """Forget what was seen, by hand, after the repository was meant to begin anew.

        Which keys have handed over is forgotten too: pin the newest.
        """
        self._generations.forget_seen()

    def sync(self) -> SyncResult:
        """Serve what the store publishes now, fetching it if need be.

        Raises:
            SignatureError, ExpiredError, RollbackError, EquivocationError, MalformedError, UnsupportedError,
            DigestMismatchError: what the store serves is not to be believed; the served generation stays.
            ConflictError: another process is syncing this folder.
            ObjectMissing, AccessDenied, StoreUnavailable, StoreError: as the store does.
            OSError: when the folder cannot be written.
        """
        started = time.monotonic()
        download = _Download()
        if self._store is None:
            raise StoreError("this mirror was opened without a store, for reading only")
        self._generations.folder.mkdir(parents=True, exist_ok=True)
        try:
            with exclusive_lock(self._generations.lock, timeout_s=0):
                outcome = self._sync(self._store, download)
        except TimeoutError as error:
            raise ConflictError(f"another process is syncing {self._generations.folder}") from error
        current = self._generations.load_current()
        if current is None:
            raise ObjectMissing(DATABASE_NAME, str(self._generations.folder))
        seen = self._generations.load_seen()
        signer = None if seen is None or seen.signed_by is None else parse_public_key(seen.signed_by).key_id
        seconds = time.monotonic() - started
        return SyncResult(outcome, current, download.downloaded_bytes, seconds, download.fallback, signer)

    def _sync(self, store: ReadableStore, download: _Download) -> Outcome:
        for tries_left in reversed(range(_POINTER_TRIES)):
            try:
                return self._follow_pointer(store, download, is_last_try=tries_left == 0)
            except ObjectMissing as missing:
                if missing.key == POINTER_KEY or tries_left == 0:
                    raise
        raise AssertionError("unreachable")

    def _follow_pointer(self, store: ReadableStore, download: _Download, is_last_try: bool) -> Outcome:
        now = self._now()
        seen = self._load_seen(now)
        keys = Keys(self._pinned, seen.followed if seen else ()) if self._pinned else None
        current = self._generations.load_intact_current()
        is_whole = (
            current is not None
            and seen is not None
            and (keys is None or keys.is_current(seen.signed_by))
            and current.sequence == seen.sequence
            and self._generations.has_database(current.database)
        )
        reading = store.get_if_changed(POINTER_KEY, current.etag if current and is_whole else "")
        if reading is None:
            assert current is not None and seen is not None  # or no entity tag would have been sent
            verify_fresh(current.sequence, current.expires_at, now)
            self._confirm(seen, now)
            return "unchanged"
        stored = read_whole(reading, MANIFEST_MAX_BYTES)
        proof = _prove(store, stored, seen, keys, is_last_try)
        trusted = verify_pointer(stored, seen, now, self._database_max_bytes, proof)
        if trusted is None:
            return "stale"
        manifest, etag = trusted.manifest, reading.info.etag
        if seen is not None and replace(trusted.seen, confirmed_at=seen.confirmed_at) == seen:
            self._confirm(seen, now)
        else:
            self._generations.store_seen(trusted.seen)
        if self._generations.has_database(manifest.database):
            assert current is not None  # it has the database
            if current.sequence == manifest.sequence and current.etag == etag:
                return "unchanged"
            self._generations.renew(manifest, etag)
            return "unchanged" if current.sequence == manifest.sequence else "renewed"
        self._fetch(store, manifest, download, is_last_try)
        self._generations.adopt(manifest, etag)
        return "updated"

    def _load_seen(self, now: datetime) -> Seen | None:
        """What is remembered. A moment of a clock that was ahead counts as now: it would silence an alarm."""
        seen = self._generations.load_seen()
        if seen is not None and seen.confirmed_at > now:
            seen = replace(seen, confirmed_at=now)
            self._generations.store_seen(seen)
        return seen

    def _confirm(self, seen: Seen, now: datetime) -> None:
        """Remember that nothing older is served; seldom, to spare the disk of a mirror that polls often."""
        if now - seen.confirmed_at > _CONFIRM_EVERY:
            self._generations.store_seen(replace(seen, confirmed_at=now))

    def _fetch(
        self, store: ReadableStore, manifest: Manifest, download: _Download, is_last_try: bool
    ) -> None:
        """Bring the manifest's database into the incoming folder, verified."""
        try:
            self._restore_with_fallback(store, manifest, download, is_last_try)
            self._progress.begin("verify")
            self._verify_database(self._generations.incoming / DATABASE_NAME)
        except BaseException:
            shutil.rmtree(self._generations.incoming, ignore_errors=True)
            raise

    def _restore_with_fallback(
        self, store: ReadableStore, manifest: Manifest, download: _Download, is_last_try: bool
    ) -> None:
        """Restore from the database that is served where that downloads less, else from the keyframe; from
        the keyframe also when what is served, or a delta that the keyframe does without, is broken."""
        download.fallback = None
        held = self._generations.load_held()
        route = plan_route(manifest, held and held.database)
        try:
            self._restore(store, route, held and held.path, download)
        except (ContractError, StoreError, OSError) as error:
            whole = plan_route(manifest, None)
            if held is None or route.keyframe is not None or not _may_be_mended(error, is_last_try):
                raise
            # The same deltas again would fail again, and a keyframe is much to download for that.
            is_held_to_blame = isinstance(error, OSError) or not _is_intact(held)
            if len(whole.deltas) >= len(route.deltas) and not is_held_to_blame:
                raise
            download.fallback = (
                f"the whole database was fetched, because the deltas could not be used: {error}"
            )
            self._restore(store, whole, None, download)

    def _restore(self, store: ReadableStore, route: Route, held: Path | None, download: _Download) -> None:
        """Go this way, into an empty incoming folder."""
        folder = self._generations.prepare_incoming()
        size_bytes = max(route.start.size_bytes, route.database.size_bytes)
        verify_space(self._generations.folder, size_bytes, "the new database")
        self._progress.begin("download", route.stored_bytes)

        def count(size_bytes: int) -> None:
            download.add(size_bytes)
            self._progress.add(size_bytes)

        restore_database(store, route, folder / DATABASE_NAME, held, count)

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


def _prove(
    store: ReadableStore, stored: bytes, seen: Seen | None, keys: Keys | None, is_last_try: bool
) -> Proof:
    """Who has signed these bytes; asked only once of the same bytes, and not at all without keys."""
    if keys is None:
        return Proof(None, False, seen.followed if seen else ())
    if (
        seen is not None
        and seen.signed_by is not None
        and keys.is_current(seen.signed_by)
        and digest_bytes(stored) == seen.digest
    ):
        return Proof(parse_public_key(seen.signed_by), False, seen.followed)
    return fetch_proof(store, stored, keys, is_last_try)


def _as_list(public_keys: Sequence[PublicKey | str]) -> Sequence[PublicKey | str]:
    """A text is a sequence of texts: one key, not one for each of its letters."""
    return [public_keys] if isinstance(public_keys, str) else public_keys


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
