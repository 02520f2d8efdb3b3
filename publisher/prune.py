"""Deletes what no kept snapshot needs, beside publishers and mirrors that go on meanwhile.

Invariant: nothing is deleted before the pointer says that it is condemned, and nothing any more when the
pointer says something else (publisher/deletion.py). Moving the pointer makes every publish under way lose its
own move, so that it plans anew and avoids what is condemned (publisher/condemned.py). A request to delete may
be on its way for long: so what a prune was deleting stands in the lists of later ones too, until it cannot be
any more. A prune that dies anywhere leaves a store that is whole, and the next one deletes what is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Literal

from contracts.condemned import format_condemned
from contracts.digests import digest_bytes
from contracts.errors import (
    ConflictError,
    ExpiredError,
    HistoryError,
    ObjectMissing,
    SignatureError,
    SnapshotError,
)
from contracts.layout import Kind, blob_key, format_key, manifest_key
from contracts.manifest import Manifest, format_manifest
from contracts.minisign import SecretKey
from publisher.condemned import fetch_condemned
from publisher.deletion import DELETES_AT_ONCE, Look, delete_condemned
from publisher.history import walk_history
from publisher.options import Environment
from publisher.plan import plan_renewal, verify_clock
from publisher.pointer import Pointer, fetch_pointer, swap_pointer
from publisher.probe import suit_store
from publisher.retention import Policy, RetentionPlan, plan_retention, required_keys
from publisher.signing import is_signed, sign_manifest, verify_not_retired
from publisher.state import State
from publisher.upload import Upload
from stores.base import Create, ListedObject, Store
from stores.progress import Progress

_TRIES = 3  # plans that a publish may overtake; one takes seconds, and publishes are minutes apart

Outcome = Literal["pruned", "planned", "unchanged", "stopped"]


@dataclass(frozen=True)
class PruneOptions:
    """What an operator may choose.

    `policy`: what is kept. `dry_run`: find out what would be deleted, and write nothing. `signing_key`: the
    one that has signed what is published. `single_publisher`, `accept_clock`: as of a publish.
    """

    policy: Policy
    dry_run: bool = False
    signing_key: SecretKey | None = None
    single_publisher: bool = False
    accept_clock: bool = False


@dataclass(frozen=True)
class PruneResult:
    """What a prune did: "stopped" when another one has taken over, which then deletes what is left.

    `deleted` went. `remaining` were deleted, but the store lists them still: it only pretends.
    """

    outcome: Outcome
    sequence: int
    plan: RetentionPlan
    deleted: tuple[ListedObject, ...]
    remaining: tuple[str, ...]
    seconds: float


def prune(
    store: Store,
    state_dir: Path | str,
    options: PruneOptions,
    *,
    progress: Progress | None = None,
    environment: Environment | None = None,
    clock_s: Callable[[], float] = time.monotonic,
    deletes_at_once: int = DELETES_AT_ONCE,
) -> PruneResult:
    """Delete from a store what the policy does not keep.

    `store` should retry by itself. `state_dir` is that of the store's publisher on this machine: its lock
    keeps the two from overtaking each other, until the pointer has moved. `clock_s` counts seconds, for how
    long a look at the pointer counts; `deletes_at_once` are in as many threads.
    Raises:
        ConflictError: when publishes keep coming in between, or one is running with the same state folder.
        ClockError: when this machine's clock is wrong.
        ExpiredError, SignatureError: when what is published cannot be renewed: it has expired, or it is not
            signed by this key.
        SnapshotError: when nothing is published, or what is published is not whole.
        HistoryError: when the chain of what is to be kept is broken.
        EquivocationError, RollbackError, MalformedError, UnsupportedError, UnsuitableStore: as of a publish.
        AccessDenied, StoreUnavailable, StoreError: as the store does.
        OSError: when the state folder cannot be written.
    """
    return _Prune(
        store,
        State(Path(state_dir)),
        options,
        progress or Progress(),
        environment or Environment(),
        clock_s,
        deletes_at_once,
    ).run()


class _Prune:
    def __init__(
        self,
        store: Store,
        state: State,
        options: PruneOptions,
        progress: Progress,
        environment: Environment,
        clock_s: Callable[[], float],
        deletes_at_once: int,
    ) -> None:
        self._given_store = self._store = store
        self._state = state
        self._options = options
        self._progress = progress
        self._environment = environment
        self._clock_s = clock_s
        self._deletes_at_once = deletes_at_once

    def run(self) -> PruneResult:
        started = time.monotonic()
        with self._state.locked():
            pointer, plan, is_condemned = self._plan_and_condemn()
        outcome: Outcome = "planned" if self._options.dry_run else "unchanged"
        deleted: list[ListedObject] = []
        if is_condemned:
            assert pointer.manifest.condemned is not None  # it was just moved there
            deleted = delete_condemned(
                self._store,
                pointer.manifest.condemned,
                plan.candidates,
                lambda: Look(self._clock_s, self._environment.now),
                self._progress,
                self._deletes_at_once,
            )
            outcome = "pruned" if len(deleted) == len(plan.candidates) else "stopped"
        return PruneResult(
            outcome,
            pointer.manifest.sequence,
            plan,
            tuple(deleted),
            self._find_remaining(deleted),
            time.monotonic() - started,
        )

    def _plan_and_condemn(self) -> tuple[Pointer, RetentionPlan, bool]:
        """The pointer, the plan, and whether the one says that the candidates of the other are condemned."""
        for tries_left in reversed(range(_TRIES)):
            base = self._fetch_base()
            try:
                plan = self._plan(base)
                if self._options.dry_run or not plan.candidates:
                    return base, plan, False
                return self._condemn(base, plan), plan, True
            except (ConflictError, HistoryError, SnapshotError) as error:
                # What looks broken may have been deleted by another prune since the pointer was read.
                found = fetch_pointer(self._store)
                if found is not None and found.digest == base.digest:
                    raise
                if tries_left == 0:
                    raise ConflictError(
                        f"a publish came in between, each of {_TRIES} times; nothing was deleted, run prune "
                        "again"
                    ) from error
        raise AssertionError("unreachable")

    def _fetch_base(self) -> Pointer:
        """The pointer, when it may be renewed from here."""
        options = self._options
        base = fetch_pointer(self._store)
        self._state.verify_repository(base and base.manifest.repository)
        if base is None:
            raise SnapshotError(f"nothing is published in {self._store.address}")
        key = options.signing_key
        self._state.verify_continues(base.manifest, partial(is_signed, self._store, base, key))
        if key is not None:
            verify_not_retired(self._store, key)
            if not is_signed(self._store, base, key):
                raise SignatureError(
                    f"snapshot {base.manifest.sequence} is not signed by key {key.public.key_id}; a prune "
                    "signs what it renews, so publish with that key first"
                )
        elif self._is_stored(format_key(Kind.SIGNATURE, base.digest)):
            raise SignatureError(
                f"snapshot {base.manifest.sequence} is signed, and mirrors would refuse a renewal that is "
                "not; give the key with --signing-key"
            )
        if not options.dry_run:
            now = self._environment.now()
            _verify_alive(base.manifest, now)
            self._store = suit_store(
                self._given_store, self._state, now, single_publisher=options.single_publisher
            )
        return base

    def _is_stored(self, key: str) -> bool:
        try:
            self._store.head(key)
        except ObjectMissing:
            return False
        return True

    def _plan(self, base: Pointer) -> RetentionPlan:
        self._progress.begin("list")
        store_now = self._judge_clock(base)
        listing = self._store.list_objects()
        history = walk_history(self._store, base)
        list_before = self._fetch_list(base)
        plan = plan_retention(history, self._options.policy, listing, store_now, list_before)
        missing = {*required_keys(base.digest, base.manifest)} & {*plan.missing}
        if missing:
            raise SnapshotError(
                f"{len(missing)} objects that snapshot {base.manifest.sequence} needs are missing, the first "
                f"{min(missing)}; nothing is deleted from a damaged store, run `music-cloud verify`"
            )
        return plan

    def _judge_clock(self, base: Pointer) -> datetime:
        """The clock that dates what the store lists, when this machine's agrees with it.

        A store that has none is asked by an object that is written now; for a dry run ours has to do.
        """
        now = self._environment.now()
        store_now = self._store.now()
        if store_now is None and not self._options.dry_run:
            key = f"probe-{self._environment.random_id()}"
            try:
                self._store.put(key, b"what time is it?", Create())
                listed = [found.modified for found in self._store.list_objects(key) if found.key == key]
            finally:
                self._store.delete(key)
            store_now = listed[0] if listed else None
        published_at = None if self._options.accept_clock else base.manifest.published_at
        verify_clock(now, store_now, published_at)
        return store_now or now

    def _condemn(self, base: Pointer, plan: RetentionPlan) -> Pointer:
        """Move the pointer to a renewal that condemns the candidates."""
        now = self._environment.now()
        _verify_alive(base.manifest, now)
        own = dict.fromkeys(found.key for found in plan.candidates)
        content = format_condemned({**plan.remembered, **own})
        condemned = digest_bytes(content)
        manifest = plan_renewal(
            base,
            now=now,
            # Nobody has looked at the catalogue, so nobody can say that the snapshot lives any longer.
            expiry=base.manifest.expires_at - now,
            random_id=self._environment.random_id(),
            condemned=condemned,
            oldest_kept=plan.oldest_kept,
        )
        upload = Upload(self._store, self._progress)
        stored = format_manifest(manifest)
        digest = digest_bytes(stored)
        if self._is_stored(blob_key(condemned)) and fetch_condemned(self._store, condemned) is None:
            # A prune that was interrupted has put the same list: an upload would leave the damage alone.
            self._store.delete(blob_key(condemned))
        upload.put(blob_key(condemned), BytesIO(content), len(content))
        upload.put(manifest_key(digest), BytesIO(stored), len(stored))
        if self._options.signing_key is not None:
            signature = sign_manifest(self._options.signing_key, manifest)
            upload.put(format_key(Kind.SIGNATURE, digest), BytesIO(signature), len(signature))
        self._progress.begin("swap")
        backoff = self._environment.backoff
        pointer = swap_pointer(
            self._store, base, manifest, lambda attempt: backoff.sleep(backoff.delay_s(attempt))
        )
        self._state.store_published(manifest, digest)
        return pointer

    def _fetch_list(self, base: Pointer) -> dict[str, datetime | None]:
        """What the pointer condemns; nobody knows it when the list is lost."""
        condemned = base.manifest.condemned
        return (condemned and fetch_condemned(self._store, condemned)) or {}

    def _find_remaining(self, deleted: Sequence[ListedObject]) -> tuple[str, ...]:
        """What the store still lists of what it was told to delete.

        A publisher that has read the pointer before may have put the same bytes again since: that is another
        object, younger than the grace, and its manifest will never be pointed to.
        """
        if not deleted:
            return ()
        self._progress.begin("verify")
        written = {(found.key, found.modified) for found in deleted}
        return tuple(
            sorted(
                found.key for found in self._store.list_objects() if (found.key, found.modified) in written
            )
        )


def _verify_alive(manifest: Manifest, now: datetime) -> None:
    """Check that a renewal which does not extend a manifest's life is any good. Raises: ExpiredError."""
    if manifest.expires_at <= now:
        raise ExpiredError(
            f"snapshot {manifest.sequence} expired at {manifest.expires_at:%Y-%m-%d %H:%M}; a prune does not "
            "look at the catalogue and cannot extend it, so publish first"
        )
