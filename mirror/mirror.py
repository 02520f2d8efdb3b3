"""A mirror: poll the pointer, have it proven, decide, fetch, verify, swap.

Invariant: whatever fails, the generation that is served stays; what was believed is on disk before the first
byte is fetched for it, so that no restart makes the mirror believe less. Nothing of a pointer is decoded
before a trusted key has signed it, unless the mirror was told to do without. The decision is that of
mirror/trust.py, the download of mirror/fetch.py, the swap of mirror/generations.py.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from contracts.digests import digest_bytes
from contracts.errors import (
    ConflictError,
    ExpiredError,
    MalformedError,
    ObjectMissing,
    SignatureError,
    StoreError,
)
from contracts.layout import POINTER_KEY
from contracts.manifest import MANIFEST_MAX_BYTES
from contracts.minisign import PublicKey, parse_public_key
from contracts.read_model import DATABASE_NAME
from mirror.fetch import Download
from mirror.generations import Current, Generations
from mirror.keys import Keys, Proof
from mirror.pace import PacedReader
from mirror.signatures import fetch_proof
from mirror.trust import DATABASE_MAX_BYTES, Seen, Trusted, verify_fresh, verify_pointer
from stores.base import ReadableStore, Reading, read_whole
from stores.locks import exclusive_lock
from stores.progress import Progress

# A blob may be deleted while an old pointer is still in a cache: ask again before raising an alarm.
_POINTER_TRIES = 3
# How long "not modified" is believed before the pointer is read whole again: whoever gave its entity tag may
# have lied. Also how old `confirmed_at` gets on disk meanwhile; small beside STALE_CACHE.
_CONFIRM_EVERY = timedelta(hours=1)

Outcome = Literal["updated", "renewed", "unchanged", "stale"]


@dataclass(frozen=True)
class SyncResult:
    """What a sync did: "stale" means that a cache served an older pointer, and nothing was changed.

    `downloaded_bytes` are those of blobs, also of blobs that were of no use. `fallback`, when there is one,
    says in a sentence why the deltas could not be used, so that the keyframe was fetched instead. `signed_by`
    is the id of the key that signed the newest manifest believed; None when the mirror is not told to ask.
    `expired`, when there is one, says in a sentence that what is served now was past its time already, which
    only a mirror that was told to begin so adopts.
    """

    outcome: Outcome
    current: Current
    downloaded_bytes: int
    seconds: float
    fallback: str | None = None
    signed_by: str | None = None
    expired: str | None = None


class Mirror:
    """A read-only copy of the catalogue in a folder.

    `store` is needed only to sync: a website that reads what another process keeps in sync leaves it out.
    Whoever syncs says whom to believe: `public_keys`, of which one must have signed (the lines `RW…` that
    `music-cloud keygen` prints), or `unsigned=True`: everybody who can write to the store or stand between.
    `smoke_query`, when given, must run on a new database before it is served. `accept_expired` lets a mirror
    that serves nothing yet begin with a snapshot whose time is over; it complains from the next sync on.
    `monotonic` gives the seconds by which downloads are found too slow.
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
        accept_expired: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC).replace(microsecond=0),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if store is not None and bool(public_keys) == unsigned:
            raise SignatureError(
                "a mirror pins the public keys of its publisher (public_keys), or says that it believes "
                "whatever the store serves (unsigned): one of the two"
            )
        self._generations = Generations(Path(target_dir))
        self._store = None if store is None else PacedReader(store, monotonic)
        self._pinned = [
            parse_public_key(key) if isinstance(key, str) else key for key in _as_list(public_keys)
        ]
        self._database_max_bytes = database_max_bytes
        self._smoke_query = smoke_query
        self._progress = progress or Progress()
        self._accept_expired = accept_expired
        self._now = now
        self._monotonic = monotonic

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
        started = self._monotonic()
        now = self._now()
        download = Download(self._generations, self._smoke_query, self._progress)
        if self._store is None:
            raise StoreError("this mirror was opened without a store, for reading only")
        self._generations.folder.mkdir(parents=True, exist_ok=True)
        try:
            with exclusive_lock(self._generations.lock, timeout_s=0):
                outcome = self._sync(self._store, now, download)
        except TimeoutError as error:
            raise ConflictError(f"another process is syncing {self._generations.folder}") from error
        current = self._generations.load_current()
        if current is None:
            raise ObjectMissing(DATABASE_NAME, str(self._generations.folder))
        seen = self._generations.load_seen()
        signer = None if seen is None or seen.signed_by is None else parse_public_key(seen.signed_by).key_id
        return SyncResult(
            outcome,
            current,
            download.downloaded_bytes,
            self._monotonic() - started,
            download.fallback,
            signer,
            _describe_expired(current, now),
        )

    def _sync(self, store: ReadableStore, now: datetime, download: Download) -> Outcome:
        for tries_left in reversed(range(_POINTER_TRIES)):
            try:
                return self._follow_pointer(store, now, download, is_last_try=tries_left == 0)
            except ObjectMissing as missing:
                if missing.key == POINTER_KEY or tries_left == 0:
                    raise
        raise AssertionError("unreachable")

    def _follow_pointer(
        self, store: ReadableStore, now: datetime, download: Download, is_last_try: bool
    ) -> Outcome:
        seen = self._load_seen(now)
        keys = Keys(self._pinned, seen.followed if seen else ()) if self._pinned else None
        current = self._generations.load_intact_current()
        is_known = (
            current is not None
            and seen is not None
            and (keys is None or keys.is_current(seen.signed_by))
            and current.sequence == seen.sequence
            and now - seen.confirmed_at <= _CONFIRM_EVERY
            and self._generations.has_database(current.database)
        )
        reading = store.get_if_changed(POINTER_KEY, current.etag if current and is_known else "")
        if reading is None:
            assert current is not None and seen is not None  # or no entity tag would have been sent
            verify_fresh(current.sequence, current.expires_at, now)
            return "unchanged"
        stored = _read_pointer(reading)
        proof = _prove(store, stored, seen, keys, is_last_try)
        trusted = self._verify_pointer(stored, seen, now, proof)
        if trusted is None:
            if current is not None:
                verify_fresh(current.sequence, current.expires_at, now)
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
        download.fetch(store, manifest, is_last_try)
        self._generations.adopt(manifest, etag)
        return "updated"

    def _verify_pointer(
        self, stored: bytes, seen: Seen | None, now: datetime, proof: Proof
    ) -> Trusted | None:
        """As `mirror.trust` says; a mirror that serves nothing may have been told to take an expired one."""
        serves_nothing = self._generations.load_held() is None
        accept_expired = self._accept_expired and serves_nothing
        try:
            return verify_pointer(stored, seen, now, self._database_max_bytes, proof, accept_expired)
        except ExpiredError as error:
            if not serves_nothing:
                raise
            raise ExpiredError(
                f"{error}. This mirror serves nothing yet, and takes an expired snapshot only when told to "
                "(--accept-expired)"
            ) from error

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


def _read_pointer(reading: Reading) -> bytes:
    """The bytes of the pointer, as many as a manifest may have."""
    try:
        return read_whole(reading, MANIFEST_MAX_BYTES)
    except MalformedError as error:
        raise MalformedError(f"{POINTER_KEY}: {error}") from error


def _describe_expired(current: Current, now: datetime) -> str | None:
    try:
        verify_fresh(current.sequence, current.expires_at, now)
    except ExpiredError as error:
        return f"{error}; it is served because nothing was before"
    return None


def _as_list(public_keys: Sequence[PublicKey | str]) -> Sequence[PublicKey | str]:
    """A text is a sequence of texts: one key, not one for each of its letters."""
    return [public_keys] if isinstance(public_keys, str) else public_keys
