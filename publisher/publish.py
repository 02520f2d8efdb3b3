"""A publish, from the catalogue to the moved pointer.

Invariant: the pointer moves last, to a manifest whose every blob is in the store; a run that dies between any
two steps leaves the public site as it was, and the next run goes on from there. The candidate is on disk
before the first byte is sent, and is finished before the catalogue is read again, so that a slow uplink
gets to the end even though the catalogue has moved on.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal

from contracts.digests import digest_bytes
from contracts.errors import DigestMismatchError, ObjectMissing, PreconditionFailed
from contracts.keyframe import KEYFRAME_LEVEL, SEGMENT_BYTES
from contracts.layout import blob_key, manifest_key
from contracts.manifest import Manifest, format_manifest
from contracts.read_model import DATABASE_NAME
from publisher.export import Export, build_database
from publisher.keyframes import write_keyframe
from publisher.plan import EXPIRY, is_renewal_due, plan_renewal, plan_snapshot, verify_clock
from publisher.pointer import Pointer, fetch_pointer, swap_pointer
from publisher.probe import verify_preconditions
from publisher.state import Candidate, State
from stores.base import Create, Store
from stores.progress import Progress
from stores.retrying import Backoff
from stores.single_publisher import SinglePublisherStore


@dataclass(frozen=True)
class PublishOptions:
    """What an operator may choose.

    `metadata_keys`: the only top-level keys of `metadata_json` that are kept; None keeps all that are public.
    `segment_bytes`: how much of the database goes into one blob. `level`: of zstd.
    `single_publisher`: the store ignores preconditions, and nobody else publishes to it.
    `accept_clock`: the clock is right, although the last publish has a later date.
    """

    metadata_keys: Collection[str] | None = None
    segment_bytes: int = SEGMENT_BYTES
    level: int = KEYFRAME_LEVEL
    expiry: timedelta = EXPIRY
    single_publisher: bool = False
    accept_clock: bool = False


@dataclass(frozen=True)
class PublishResult:
    """What a publish did.

    `resumed` says that a candidate of an earlier run was finished first. Bytes are those of blobs and
    manifests: sent now, and found in the store already.
    """

    outcome: Literal["published", "renewed", "unchanged"]
    manifest: Manifest
    resumed: bool
    sent_bytes: int
    sent_objects: int
    present_bytes: int
    seconds: float


@dataclass
class _Sent:
    sent_bytes: int = 0
    sent_objects: int = 0
    present_bytes: int = 0


@dataclass(frozen=True)
class Environment:
    """The clock, the randomness and the patience of a publish; tests choose others."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC).replace(microsecond=0)
    random_id: Callable[[], str] = lambda: secrets.token_hex(16)
    backoff: Backoff = field(default_factory=Backoff)


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
        MalformedError, UnsupportedError, DigestMismatchError: when the store holds something else than a
            publisher put there.
        AccessDenied, StoreUnavailable, StoreError: as the store does.
        OSError: when the state folder cannot be written.
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
        self._source_db = source_db
        self._store = SinglePublisherStore(store) if options.single_publisher else store
        self._state = state
        self._options = options
        keys = options.metadata_keys
        self._metadata_keys = None if keys is None else frozenset(keys)
        self._progress = progress
        self._environment = environment
        self._sent = _Sent()

    def run(self) -> PublishResult:
        started = time.monotonic()
        with self._state.locked():
            base = fetch_pointer(self._store)
            self._state.verify_repository(base and base.manifest.repository)
            verify_clock(
                self._environment.now(),
                self._store.now(),
                None if base is None or self._options.accept_clock else base.manifest.published_at,
            )
            if not self._options.single_publisher and not self._state.is_probed(self._store.address):
                verify_preconditions(self._store)
                self._state.store_probed(self._store.address)
            outcome: Literal["published", "renewed", "unchanged"] = "unchanged"
            resumed = False
            if base is None or not base.manifest.held:
                finished = self._finish_candidate(base)
                resumed = finished is not None
                base = finished or base
                candidate = self._make_candidate(base)
                if candidate is not None:
                    base = self._publish_candidate(candidate, base)
                if resumed or candidate is not None:
                    outcome = "published"
            assert base is not None  # nothing published before: then a candidate was
            if is_renewal_due(base.manifest, self._environment.now()):
                base = self._renew(base)
                outcome = "renewed" if outcome == "unchanged" else outcome
        return PublishResult(
            outcome,
            base.manifest,
            resumed,
            self._sent.sent_bytes,
            self._sent.sent_objects,
            self._sent.present_bytes,
            time.monotonic() - started,
        )

    def _finish_candidate(self, base: Pointer | None) -> Pointer | None:
        """Publish what an earlier run left ready, when nothing was published since; None when nothing was."""
        candidate = self._state.load_candidate()
        finished = None
        # One made with other keys may hold what the operator has since decided to keep.
        wanted = (self._store.address, base and base.digest, self._metadata_keys)
        if candidate is not None and (candidate.store, candidate.base, candidate.metadata_keys) == wanted:
            finished = self._publish_candidate(candidate, base)
        self._state.discard_candidate()
        return finished

    def _make_candidate(self, base: Pointer | None) -> Candidate | None:
        """Export the catalogue and compress it; None when that is what is published already."""
        with self._state.scratch() as scratch:
            path = scratch / DATABASE_NAME
            self._progress.begin("export")
            export = build_database(
                self._source_db,
                path,
                metadata_keys=self._metadata_keys,
                now=self._environment.now(),
            )
            if base is not None and export.database == base.manifest.database:
                return None
            return self._keep_candidate(export, path, scratch, base)

    def _keep_candidate(self, export: Export, path: Path, scratch: Path, base: Pointer | None) -> Candidate:
        blobs_dir = scratch / "blobs"
        blobs_dir.mkdir()
        keyframe = write_keyframe(
            path,
            export.database,
            blobs_dir,
            self._options.segment_bytes,
            self._options.level,
            self._progress,
        )
        path.unlink()
        candidate = Candidate(
            self._store.address,
            base and base.digest,
            export.snapshot,
            export.database,
            keyframe,
            self._metadata_keys,
        )
        self._state.store_candidate(candidate, scratch)
        return candidate

    def _publish_candidate(self, candidate: Candidate, base: Pointer | None) -> Pointer:
        """Upload what is missing, then move the pointer."""
        blobs = {blob.digest: blob for blob in candidate.keyframe.blobs}.values()
        self._progress.begin("upload", sum(blob.size_bytes for blob in blobs))
        for blob in blobs:
            with self._state.blob_path(blob).open("rb") as stream:
                self._put(blob_key(blob.digest), stream, blob.size_bytes)
        manifest = plan_snapshot(
            base,
            candidate.snapshot,
            candidate.database,
            candidate.keyframe,
            now=self._environment.now(),
            expiry=self._options.expiry,
            random_id=self._environment.random_id(),
        )
        pointer = self._swap(base, manifest)
        self._state.discard_candidate()
        return pointer

    def _renew(self, base: Pointer) -> Pointer:
        manifest = plan_renewal(
            base,
            now=self._environment.now(),
            expiry=self._options.expiry,
            random_id=self._environment.random_id(),
        )
        return self._swap(base, manifest)

    def _swap(self, base: Pointer | None, manifest: Manifest) -> Pointer:
        stored = format_manifest(manifest)
        self._put(manifest_key(digest_bytes(stored)), BytesIO(stored), len(stored))
        self._progress.begin("swap")
        backoff = self._environment.backoff
        pointer = swap_pointer(
            self._store, base, manifest, lambda attempt: backoff.sleep(backoff.delay_s(attempt))
        )
        self._state.store_repository(manifest.repository)
        return pointer

    def _put(self, key: str, body: BinaryIO, size_bytes: int) -> None:
        """Create an object named by its digest, or find it there already.

        It is looked for first: a refused upload has been sent in vain.
        """
        if not self._is_present(key, size_bytes):
            try:
                self._store.put(key, self._progress.watch(body), Create())
            except PreconditionFailed:  # an answer was lost, or another publisher sends the same blob
                if not self._is_present(key, size_bytes):
                    raise
            self._sent.sent_bytes += size_bytes
            self._sent.sent_objects += 1
        else:
            self._sent.present_bytes += size_bytes
        self._progress.add(size_bytes)

    def _is_present(self, key: str, size_bytes: int) -> bool:
        try:
            found = self._store.head(key).size_bytes
        except ObjectMissing:
            return False
        if found != size_bytes:
            raise DigestMismatchError(
                f"{key} in {self._store.address}", f"in {size_bytes} bytes", f"{found} bytes; delete it"
            )
        return True
