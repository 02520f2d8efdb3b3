"""The proof that a publish gives before the pointer moves: what it found, how long it took.

Invariant: what fails here stops the publish while the pointer is where it was. `MalformedError` means that
what was made is bad, so that it must be made anew; any other error that somebody has to help the store first.
What is proven of a database is in publisher/proof/database.py and publisher/proof/places.py, of an upload in
publisher/proof/upload.py; this file puts them together, and does nothing when told to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from contracts.errors import MalformedError
from contracts.read_model import PAGE_BYTES
from publisher.proof.database import verify_database_file, verify_integrity
from publisher.proof.places import load_places, verify_no_places
from publisher.proof.upload import (
    plan_sample,
    verify_applied_delta,
    verify_blobs,
    verify_keyframe_blobs,
    verify_stored,
)
from publisher.state import Candidate, State, WaitingKeyframe
from stores.base import Store
from stores.files import verify_space
from stores.progress import Progress


class Proof:
    """Proves what one publish makes and uploads; the state folder is locked by the caller.

    `seconds`: what it took so far. `remark`: a sentence on what could only be proven in part, or None.
    """

    def __init__(
        self,
        source_db: Path | None,
        store: Store,
        state: State,
        progress: Progress,
        *,
        random: Random,
        is_wanted: bool = True,
    ) -> None:
        self._source_db = source_db
        self._store = store
        self._state = state
        self._progress = progress
        self._random = random
        self._is_wanted = is_wanted
        self.seconds = 0.0
        self.remark: str | None = None

    def verify_candidate(self, candidate: Candidate) -> None:
        """Check the database of a candidate, before the first byte of it is sent.

        Raises:
            MalformedError: when it is damaged, is not exactly a read model, or would publish a place.
            SourceError: when the catalogue does not say which places those are.
            OSError: when it cannot be read, or there is no room to look closer.
        """
        if not self._is_wanted:
            return
        path = self._state.database_path(candidate.database)
        with self._timed():
            places = {} if self._source_db is None else load_places(self._source_db)
            self._progress.begin("proof", candidate.database.size_bytes)
            verify_database_file(
                path,
                candidate.snapshot,
                is_thorough=candidate.keyframe is not None,
                meanwhile=lambda: verify_no_places(path, places, self._state.scratch, self._progress.add),
            )

    def verify_keyframe(self, waiting: WaitingKeyframe) -> None:
        """Check the database of a keyframe that follows its snapshot, before the first byte of it is sent.

        One that the state has no more was checked when it was published, and its digest says that it is the
        same.
        Raises:
            MalformedError: when it is damaged.
        """
        if not self._is_wanted:
            return
        with self._timed():
            path = self._state.load_database(waiting.keyframe.database)
            self._progress.begin("proof", waiting.keyframe.database.size_bytes)
            if path is not None:
                verify_integrity(path)

    def verify_upload(self, plan: Candidate | WaitingKeyframe) -> None:
        """Read back what was uploaded of a plan, and what of it was there already, as a mirror would.

        A delta in full, applied to its base; of a keyframe a sample and the size of the rest, or all
        of one where the store is known to take whatever comes (`music-cloud doctor`).
        Raises:
            MalformedError: when what is stored is what was made, but does not lead to the database.
            DigestMismatchError: when the store holds other bytes.
            ObjectMissing, AccessDenied, StoreUnavailable, StoreError: as the store does.
        """
        if not self._is_wanted:
            return
        with self._timed():
            if isinstance(plan, Candidate) and plan.delta is not None:
                self._verify_delta(plan)
            if plan.keyframe is not None:
                sample = self._plan_sample([blob.size_bytes for blob in plan.keyframe.blobs])
                self._progress.begin("proof", sum(plan.keyframe.blobs[index].size_bytes for index in sample))
                database = self._state.database_path(plan.keyframe.database)
                verify_keyframe_blobs(
                    self._store,
                    plan.keyframe,
                    sample,
                    database if database.exists() else None,
                    self._progress.add,
                )

    def verify_object(self, key: str, content: bytes) -> None:
        """Read back a small object that was put: a manifest or its signature.

        Raises: DigestMismatchError and what the store raises, as `verify_upload`.
        """
        if self._is_wanted:
            with self._timed():
                verify_stored(self._store, key, content)

    def _plan_sample(self, sizes: list[int]) -> list[int]:
        """Which blobs of a keyframe to read back: all, where the store is known to take damaged ones."""
        profile = self._state.load_profile()
        if profile is not None and profile.store == self._store.address and profile.checks_sums is False:
            return list(range(len(sizes)))
        return plan_sample(sizes, self._random)

    def _verify_delta(self, candidate: Candidate) -> None:
        delta = candidate.delta
        assert delta is not None
        self._progress.begin("proof", delta.stored_bytes)
        base = self._state.database_path(delta.base)
        pages = candidate.pages or delta.target.size_bytes // PAGE_BYTES
        with self._state.scratch() as scratch:
            try:
                verify_space(scratch, pages * PAGE_BYTES, "the proof of a delta")
                # The result's digest says of the base, too, that it is the right one.
                verify_applied_delta(self._store, delta, base, scratch, self._progress.add)
            except OSError as error:
                self._verify_digests_only(candidate, str(error))
            except MalformedError as error:
                if self._state.load_database(delta.base) is None:
                    self._verify_digests_only(candidate, f"{base}, from which it starts, is damaged")
                    return
                raise MalformedError(
                    f"the delta does not lead to the new database ({error}); nothing was published: run "
                    "publish again, and with --rebuild when that does not help"
                ) from error

    def _verify_digests_only(self, candidate: Candidate, reason: str) -> None:
        assert candidate.delta is not None
        self.remark = f"the delta was proven by the digests of its blobs alone: {reason}"
        verify_blobs(self._store, candidate.delta.blobs, self._progress.add)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - started
