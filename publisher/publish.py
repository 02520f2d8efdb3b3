"""A publish, from the catalogue to the moved pointer.

Invariant: the pointer moves last, to a manifest whose every blob is in the store, and its signature too where
there is a key; a run that dies between any two steps leaves the public site as it was, and the next run goes
on from there. The candidate is on disk before the first byte is sent, and is finished before the catalogue is
read again, so that a slow uplink gets to the end even though the catalogue has moved on. A keyframe that is
due follows when the delta is live.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from contracts.digests import digest_bytes
from contracts.errors import ContractError, MalformedError, SnapshotError, StoreError, UnsupportedError
from contracts.layout import Kind, format_key, manifest_key
from contracts.manifest import Blob, Delta, Keyframe, Manifest, format_manifest
from publisher.candidates import Candidates
from publisher.chain import is_keyframe_due, is_newer_keyframe
from publisher.condemned import Condemned
from publisher.damage import MISSING, blobs_of, deltas_after_damage, find_damaged
from publisher.history import find_held_since
from publisher.options import Environment, PublishOptions
from publisher.plan import is_renewal_due, plan_renewal, plan_snapshot, verify_clock
from publisher.pointer import Pointer, fetch_pointer, swap_pointer
from publisher.probe import suit_store
from publisher.proof import Proof
from publisher.repair import mend_blob, mend_copy
from publisher.result import Outcome, PublishResult, sum_changes
from publisher.signing import is_signed, sign_manifest, verify_not_retired
from publisher.spool import Spool
from publisher.state import Candidate, State, WaitingKeyframe
from publisher.upload import Upload
from publisher.waiting import may_follow
from stores.base import Store
from stores.progress import Progress
from stores.single_publisher import SinglePublisherStore


def publish(
    source_db: Path | str,
    store: Store,
    state_dir: Path | str,
    options: PublishOptions | None = None,
    *,
    progress: Progress | None = None,
    environment: Environment | None = None,
) -> PublishResult:
    """Bring the store to the present state of the catalogue.

    `store` should retry by itself (stores/retrying.py). One `state_dir` serves one store.
    Raises:
        SourceError: when the catalogue cannot be exported.
        ClockError: when this machine's clock is wrong.
        UnsuitableStore: when the store ignores preconditions.
        ConflictError: when another publisher was faster, or uses the same state folder now.
        EquivocationError: when the store is not the one that was published to from this state folder.
        RollbackError: when the store serves less than was published from it.
        SignatureError: when the key has handed over, or what is published is not signed by it and held, or
            numbered as no publisher has.
        MalformedError, UnsupportedError, DigestMismatchError, ObjectMissing: when the store holds something
            else than a publisher put there, or what was made is no good (publisher/proof/).
        AccessDenied, StoreUnavailable, StoreError: as the store does.
        OSError: when the state folder cannot be written, or its disk has no room.
    """
    return PublishRun(
        Path(source_db),
        store,
        State(Path(state_dir)),
        options or PublishOptions(),
        progress or Progress(),
        environment or Environment(),
    ).run()


class PublishRun:
    """One run: what a publish and a rollback (publisher/rollback.py) have in common."""

    def __init__(
        self,
        source_db: Path | None,
        store: Store,
        state: State,
        options: PublishOptions,
        progress: Progress,
        environment: Environment,
    ) -> None:
        self._store = SinglePublisherStore(store) if options.single_publisher else store
        self._state = state
        self._options = options
        self._progress = progress
        self._environment = environment
        self._candidates = Candidates(source_db, self._store, state, options, progress)
        self._upload = Upload(self._store, progress)
        self._condemned = Condemned(self._store)
        self._proof = Proof(
            source_db, self._store, state, progress, random=environment.random, is_wanted=options.proof
        )
        self._published: list[Candidate] = []
        self._keyframe = False
        self._repaired = 0
        self._live: Pointer | None = None  # where this run has moved the pointer to
        self._postponed: str | None = None

    def run(self) -> PublishResult:
        started = time.monotonic()
        with self._state.locked():
            base = self._fetch_base()
            waiting = self._load_candidate(base)
            outcome, manifest = (self._plan if self._options.dry_run else self._bring_up)(base, waiting)
        return PublishResult(
            outcome,
            manifest,
            waiting is not None,
            self._keyframe,
            sum_changes(self._published),
            sum(candidate.pages or 0 for candidate in self._published),
            self._upload.sent_bytes,
            self._upload.sent_objects,
            self._upload.present_bytes,
            manifest.keyframe.stored_bytes,
            time.monotonic() - started,
            self._postponed,
            repaired=self._repaired,
            held_since=self._find_held_since(base),
            proof_seconds=self._proof.seconds,
            proof_remark=self._proof.remark,
        )

    def _find_held_since(self, base: Pointer | None) -> datetime | None:
        live = self._live or base
        return None if live is None or not live.manifest.held else find_held_since(self._store, live)

    def _fetch_base(self) -> Pointer | None:
        """The pointer, when this machine may move it."""
        options = self._options
        base = fetch_pointer(self._store)
        self._state.verify_repository(base and base.manifest.repository)
        if base is not None:
            is_ours = partial(is_signed, self._store, base, options.signing_key)
            self._state.verify_continues(base.manifest, is_ours)
        verify_clock(
            self._environment.now(),
            self._store.now(),
            None if base is None or options.accept_clock else base.manifest.published_at,
        )
        if options.signing_key is not None:
            verify_not_retired(self._store, options.signing_key)
        if not (options.single_publisher or options.dry_run):
            self._store = suit_store(self._store, self._state, self._environment.now())
        return base

    def _load_candidate(self, base: Pointer | None) -> Candidate | None:
        """What an earlier run left ready, when nothing else was published since."""
        candidate = self._state.candidate.load()
        if candidate is None or not may_follow(candidate, self._store, base):
            return None
        if self._options.proof and self._state.load_database(candidate.database) is None:
            return None  # nothing of it could be proven any more
        if candidate.held:  # a rollback that was interrupted: its operator wanted it
            return None if self._options.resume else candidate
        # One made with other keys may hold what the operator has since decided to keep.
        is_wanted = candidate.metadata_keys == self._options.metadata_keys and not self._is_held(base)
        return candidate if is_wanted else None

    def _is_held(self, base: Pointer | None) -> bool:
        """Whether a rollback keeps this run from publishing the catalogue."""
        return base is not None and base.manifest.held and not self._options.resume

    def _plan(self, base: Pointer | None, waiting: Candidate | None) -> tuple[Outcome, Manifest]:
        """Count what would be sent: what waits, or else what the catalogue now says."""
        candidate = waiting
        if candidate is None and not self._is_held(base):
            candidate = self._candidates.make(
                base, rebuild=self._options.rebuild, now=self._environment.now(), keep=False
            )
        if candidate is None:
            assert base is not None  # nothing published before: then there is a candidate
            if base.manifest.held and self._options.resume:  # the catalogue is what is held
                return "planned", self._count((), self._plan_renewal(base, resume=True))
            return "unchanged", base.manifest
        return self._describe(base, candidate)

    def _describe(self, base: Pointer | None, candidate: Candidate) -> tuple[Outcome, Manifest]:
        """Count what a candidate would send; nothing is sent."""
        manifest = self._count(candidate.blobs, self._plan_snapshot(base, candidate))
        self._note(candidate)
        return "planned", manifest

    def _count(self, blobs: Iterable[Blob], manifest: Manifest) -> Manifest:
        self._upload.look_for(blobs, manifest)
        if self._options.signing_key is not None:
            self._upload.count(len(sign_manifest(self._options.signing_key, manifest)))
        return manifest

    def _bring_up(self, base: Pointer | None, waiting: Candidate | None) -> tuple[Outcome, Manifest]:
        """Publish what waits, what changed since, and a keyframe if one is due; else renew if that is due."""
        self._tidy(base, waiting)
        if self._options.repair and base is not None:
            self._repaired += mend_copy(self._store, base)  # what follows moves the pointer, its other source
        if waiting is not None:
            base = self._publish_candidate(waiting, base)
        is_held = self._is_held(base)
        if not is_held:
            base = self._publish_changes(base, rebuild=self._options.rebuild)
        assert base is not None  # nothing published before: then there was a candidate
        if self._options.repair:
            base = self._repair(base)
        if not is_held:
            base = self._publish_keyframe_if_possible(base)
        if base.manifest.held and not is_held:  # the catalogue is what is held
            return "renewed", self._renew(base, resume=True).manifest
        if self._published or self._keyframe or self._repaired:
            return "published", base.manifest
        if self._is_renewal_due(base):
            return "renewed", self._renew(base).manifest
        return "unchanged", base.manifest

    def _is_renewal_due(self, base: Pointer) -> bool:
        key = self._options.signing_key
        is_fine = key is None or is_signed(self._store, base, key)
        now, expiry = self._environment.now(), self._options.expiry
        return is_renewal_due(base.manifest, now, expiry, is_signed=is_fine)

    def _tidy(self, base: Pointer | None, waiting: Candidate | None) -> None:
        """Delete what a crash or another publisher has left useless."""
        if waiting is None:
            self._state.candidate.discard()
        kept = [] if waiting is None else [waiting.database]
        if base is not None:
            held = self._state.find_held(base.manifest)
            kept += [] if held is None else [held]
        self._state.delete_databases(kept)

    def _publish_changes(self, base: Pointer | None, *, rebuild: bool) -> Pointer:
        """Publish the catalogue as it is now, unless it is published already."""
        candidate = self._candidates.make(base, rebuild=rebuild, now=self._environment.now())
        if candidate is not None:
            return self._publish_candidate(candidate, base)
        assert base is not None  # nothing published before: then there is a candidate
        return base

    def _publish_candidate(self, candidate: Candidate, base: Pointer | None) -> Pointer:
        """Upload what is missing, then move the pointer."""
        candidate = self._condemned.rename(base, candidate, self._state.candidate)
        with self._discarding(self._state.candidate):
            self._plan_snapshot(base, candidate)
            self._proof.verify_candidate(candidate)
            self._upload.put_blobs(candidate, self._state.candidate.blob_path)
            self._proof.verify_upload(candidate)
        pointer = self._swap(base, self._plan_snapshot(base, candidate))
        self._state.candidate.discard()
        self._state.delete_databases([candidate.database])
        self._note(candidate)
        return pointer

    def _publish_keyframe_if_possible(self, base: Pointer) -> Pointer:
        """As `_publish_keyframe`; what this run has published before is told, whatever becomes of it."""
        try:
            return self._publish_keyframe(base)
        except (ContractError, StoreError, OSError) as error:
            if not self._published:
                raise
            self._postponed = f"the keyframe that is due was put off to the next publish: {error}"
            return self._live or base

    def _publish_keyframe(self, base: Pointer) -> Pointer:
        """Publish a keyframe that is due, of what is live; go on with one that an earlier run has begun."""
        waiting = self._state.keyframe.load()
        if waiting is None or not self._is_wanted(waiting, base):
            self._state.keyframe.discard()
            if is_keyframe_due(base.manifest) and self._candidates.is_rebuild_due(base.manifest):
                base = self._publish_changes(base, rebuild=True)
            waiting = self._make_keyframe(base.manifest)
        return base if waiting is None else self._send_keyframe(waiting, base)

    def _send_keyframe(
        self, waiting: WaitingKeyframe, base: Pointer, deltas: tuple[Delta, ...] | None = None
    ) -> Pointer:
        """Upload what is missing of a keyframe, then move the pointer."""
        waiting = self._condemned.rename(base, waiting, self._state.keyframe)
        with self._discarding(self._state.keyframe):
            self._plan_renewal(base, waiting.keyframe, deltas)
            self._proof.verify_keyframe(waiting)
            self._upload.put_blobs(waiting, self._state.keyframe.blob_path)
            self._proof.verify_upload(waiting)
        base = self._renew(base, waiting.keyframe, deltas)
        self._keyframe = True
        self._state.keyframe.discard()
        return base

    @contextmanager
    def _discarding(self, spool: Spool[Any]) -> Iterator[None]:
        """What no manifest can describe, or is no good, is not kept: what is made next may be better."""
        try:
            yield
        except (UnsupportedError, MalformedError):
            spool.discard()
            raise

    def _repair(self, base: Pointer) -> Pointer:
        """Put right what the pointer names and the store lacks, or has damaged."""
        blobs = blobs_of(base.manifest)
        self._progress.begin("verify", sum(blob.size_bytes for blob in blobs))
        damaged = find_damaged(self._store, blobs, self._progress.add)
        self._repaired += len(damaged) + mend_copy(self._store, base)
        if not damaged:
            return base
        if base.manifest.held:
            self._is_renewal_due(base)  # what nobody has compared with the catalogue must be signed by us
        waiting = self._candidates.make_keyframe(base.manifest)
        if waiting is None:
            raise SnapshotError(
                f"the database of snapshot {base.manifest.sequence} is nowhere to be had; end the hold with "
                "--resume, or roll back to another snapshot"
            )
        for blob in waiting.blobs:
            if damaged.get(blob, MISSING) != MISSING:  # what is there under its name would be left alone
                mend_blob(self._store, blob, self._state.keyframe.blob_path(blob))
                self._upload.count(blob.size_bytes)
        return self._send_keyframe(waiting, base, deltas_after_damage(base.manifest, damaged))

    def _make_keyframe(self, manifest: Manifest) -> WaitingKeyframe | None:
        return self._candidates.make_keyframe(manifest) if is_keyframe_due(manifest) else None

    def _is_wanted(self, waiting: WaitingKeyframe, base: Pointer) -> bool:
        # As a candidate, one made with other keys may hold what is private now.
        made_for = (waiting.store, waiting.metadata_keys)
        wanted = (self._store.address, self._options.metadata_keys)
        return made_for == wanted and is_newer_keyframe(base.manifest, waiting.keyframe)

    def _note(self, candidate: Candidate) -> None:
        self._published.append(candidate)
        self._keyframe = self._keyframe or candidate.keyframe is not None

    def _plan_snapshot(self, base: Pointer | None, candidate: Candidate) -> Manifest:
        return plan_snapshot(
            base,
            candidate,
            now=self._environment.now(),
            expiry=self._options.expiry,
            random_id=self._environment.random_id(),
        )

    def _plan_renewal(
        self,
        base: Pointer,
        keyframe: Keyframe | None = None,
        deltas: tuple[Delta, ...] | None = None,
        resume: bool = False,
    ) -> Manifest:
        return plan_renewal(
            base,
            now=self._environment.now(),
            expiry=self._options.expiry,
            random_id=self._environment.random_id(),
            keyframe=keyframe,
            deltas=deltas,
            resume=resume,
        )

    def _renew(
        self,
        base: Pointer,
        keyframe: Keyframe | None = None,
        deltas: tuple[Delta, ...] | None = None,
        resume: bool = False,
    ) -> Pointer:
        return self._swap(base, self._plan_renewal(base, keyframe, deltas, resume))

    def _swap(self, base: Pointer | None, manifest: Manifest) -> Pointer:
        self._condemned.verify(base, manifest)
        stored = format_manifest(manifest)
        digest = digest_bytes(stored)
        self._upload.put(manifest_key(digest), BytesIO(stored), len(stored))
        self._proof.verify_object(manifest_key(digest), stored)
        if self._options.signing_key is not None:
            signature = sign_manifest(self._options.signing_key, manifest)
            self._upload.put(format_key(Kind.SIGNATURE, digest), BytesIO(signature), len(signature))
            self._proof.verify_object(format_key(Kind.SIGNATURE, digest), signature)
        self._progress.begin("swap")
        backoff = self._environment.backoff
        pointer = swap_pointer(
            self._store, base, manifest, lambda attempt: backoff.sleep(backoff.delay_s(attempt))
        )
        self._upload.count(len(stored))
        self._state.store_repository(manifest.repository)
        self._state.store_published(manifest, digest)
        self._live = pointer
        return pointer
