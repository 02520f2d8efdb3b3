"""A publish, from the catalogue to the moved pointer.

Invariant: the pointer moves last, to a manifest whose every blob is in the store, and its signature too where
there is a key; a run that dies between any two steps leaves the public site as it was, and the next run goes
on from there. The candidate is on disk before the first byte is sent, and is finished before the catalogue is
read again, so that a slow uplink gets to the end even though the catalogue has moved on. A keyframe that is
due follows when the delta is live.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from contracts.digests import digest_bytes
from contracts.errors import ContractError, StoreError, UnsupportedError
from contracts.layout import Kind, format_key, manifest_key
from contracts.manifest import Keyframe, Manifest, format_manifest
from publisher.candidates import Candidates
from publisher.chain import is_keyframe_due, is_newer_keyframe
from publisher.options import Environment, PublishOptions
from publisher.plan import is_renewal_due, plan_renewal, plan_snapshot, verify_clock
from publisher.pointer import Pointer, fetch_pointer, swap_pointer
from publisher.probe import verify_preconditions
from publisher.refresh import TableChanges
from publisher.signing import is_signed, sign_manifest, verify_not_retired
from publisher.spool import Spool
from publisher.state import Candidate, State, WaitingKeyframe
from publisher.upload import Upload
from stores.base import Store
from stores.progress import Progress
from stores.single_publisher import SinglePublisherStore

Outcome = Literal["published", "renewed", "unchanged", "planned"]


@dataclass(frozen=True)
class PublishResult:
    """What a publish did, or would do: "planned" is what a dry run says of what it would publish.

    `resumed`: a candidate of an earlier run was finished first. `keyframe`: one was published, with the
    snapshot or after it (a dry run knows only of the former). `tables`: the rows that changed, by table of
    the read model; empty when the catalogue was exported anew. `pages`: in the deltas, of 4,096 bytes. Bytes
    are those of blobs, manifest, signature and pointer: sent now, and in the store already. `full_bytes` are
    those of a full upload, which is the keyframe's blobs. `postponed`, when there is one, says in a sentence
    why a keyframe that is due could not follow; the snapshot is live all the same.
    """

    outcome: Outcome
    manifest: Manifest
    resumed: bool
    keyframe: bool
    tables: Mapping[str, TableChanges]
    pages: int
    sent_bytes: int
    sent_objects: int
    present_bytes: int
    full_bytes: int
    seconds: float
    postponed: str | None = None


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
        SignatureError: when the key has handed over, or what is published is held and not signed by it.
        MalformedError, UnsupportedError, DigestMismatchError: when the store holds something else than a
            publisher put there.
        AccessDenied, StoreUnavailable, StoreError: as the store does.
        OSError: when the state folder cannot be written, or its disk has no room.
    """
    return _Publish(
        Path(source_db),
        store,
        State(Path(state_dir)),
        options or PublishOptions(),
        progress or Progress(),
        environment or Environment(),
    ).run()


class _Publish:
    def __init__(
        self,
        source_db: Path,
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
        self._published: list[Candidate] = []
        self._keyframe = False
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
            _sum_changes(self._published),
            sum(candidate.pages or 0 for candidate in self._published),
            self._upload.sent_bytes,
            self._upload.sent_objects,
            self._upload.present_bytes,
            manifest.keyframe.stored_bytes,
            time.monotonic() - started,
            self._postponed,
        )

    def _fetch_base(self) -> Pointer | None:
        """The pointer, when this machine may move it."""
        options = self._options
        base = fetch_pointer(self._store)
        self._state.verify_repository(base and base.manifest.repository)
        verify_clock(
            self._environment.now(),
            self._store.now(),
            None if base is None or options.accept_clock else base.manifest.published_at,
        )
        if options.signing_key is not None:
            verify_not_retired(self._store, options.signing_key)
        if not (options.single_publisher or options.dry_run or self._state.is_probed(self._store.address)):
            verify_preconditions(self._store)
            self._state.store_probed(self._store.address)
        return base

    def _load_candidate(self, base: Pointer | None) -> Candidate | None:
        """What an earlier run left ready, when nothing was published since."""
        candidate = self._state.candidate.load()
        # One made with other keys may hold what the operator has since decided to keep.
        wanted = (self._store.address, base and base.digest, self._options.metadata_keys)
        if candidate is None or (candidate.store, candidate.base, candidate.metadata_keys) != wanted:
            return None
        return None if base is not None and base.manifest.held else candidate

    def _plan(self, base: Pointer | None, waiting: Candidate | None) -> tuple[Outcome, Manifest]:
        """Count what would be sent: what waits, or else what the catalogue now says."""
        candidate = waiting
        if candidate is None and not (base is not None and base.manifest.held):
            candidate = self._candidates.make(
                base, rebuild=self._options.rebuild, now=self._environment.now(), keep=False
            )
        if candidate is None:
            assert base is not None  # nothing published before: then there is a candidate
            return "unchanged", base.manifest
        manifest = self._plan_snapshot(base, candidate)
        self._upload.look_for(candidate, manifest)
        if self._options.signing_key is not None:
            self._upload.count(len(sign_manifest(self._options.signing_key, manifest)))
        self._note(candidate)
        return "planned", manifest

    def _bring_up(self, base: Pointer | None, waiting: Candidate | None) -> tuple[Outcome, Manifest]:
        """Publish what waits, what changed since, and a keyframe if one is due; else renew if that is due."""
        self._tidy(base, waiting)
        if base is None or not base.manifest.held:
            if waiting is not None:
                base = self._publish_candidate(waiting, base)
            base = self._publish_changes(base, rebuild=self._options.rebuild)
            base = self._publish_keyframe_if_possible(base)
        if self._published or self._keyframe:
            return "published", base.manifest
        key = self._options.signing_key
        is_fine = key is None or is_signed(self._store, base, key)
        if is_renewal_due(base.manifest, self._environment.now(), is_signed=is_fine):
            return "renewed", self._renew(base).manifest
        return "unchanged", base.manifest

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
        with self._discarding(self._state.candidate):
            self._plan_snapshot(base, candidate)
        self._upload.put_blobs(candidate, self._state.candidate.blob_path)
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
        if waiting is None:
            return base
        with self._discarding(self._state.keyframe):
            self._plan_renewal(base, waiting.keyframe)
        self._upload.put_blobs(waiting, self._state.keyframe.blob_path)
        base = self._renew(base, waiting.keyframe)
        self._keyframe = True
        self._state.keyframe.discard()
        return base

    @contextmanager
    def _discarding(self, spool: Spool[Any]) -> Iterator[None]:
        """What no manifest can describe is neither sent nor kept: other settings make something else."""
        try:
            yield
        except UnsupportedError:
            spool.discard()
            raise

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

    def _plan_renewal(self, base: Pointer, keyframe: Keyframe | None) -> Manifest:
        return plan_renewal(
            base,
            now=self._environment.now(),
            expiry=self._options.expiry,
            random_id=self._environment.random_id(),
            keyframe=keyframe,
        )

    def _renew(self, base: Pointer, keyframe: Keyframe | None = None) -> Pointer:
        return self._swap(base, self._plan_renewal(base, keyframe))

    def _swap(self, base: Pointer | None, manifest: Manifest) -> Pointer:
        stored = format_manifest(manifest)
        digest = digest_bytes(stored)
        self._upload.put(manifest_key(digest), BytesIO(stored), len(stored))
        if self._options.signing_key is not None:
            signature = sign_manifest(self._options.signing_key, manifest)
            self._upload.put(format_key(Kind.SIGNATURE, digest), BytesIO(signature), len(signature))
        self._progress.begin("swap")
        backoff = self._environment.backoff
        pointer = swap_pointer(
            self._store, base, manifest, lambda attempt: backoff.sleep(backoff.delay_s(attempt))
        )
        self._upload.count(len(stored))
        self._state.store_repository(manifest.repository)
        self._live = pointer
        return pointer


def _sum_changes(candidates: Sequence[Candidate]) -> dict[str, TableChanges]:
    """The rows that changed in any of these, table by table."""
    changes: dict[str, TableChanges] = {}
    for candidate in candidates:
        for name, change in candidate.tables.items():
            before = changes.get(name, TableChanges())
            changes[name] = TableChanges(*(sum(counts) for counts in zip(before, change, strict=True)))
    return changes
