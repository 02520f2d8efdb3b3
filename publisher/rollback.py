"""A rollback: an earlier database, published as a new snapshot and held.

Invariant: the pointer only ever moves forward, so a mirror sees nothing but one more snapshot; the way there,
and what survives a crash on it, are a publish's own (publisher/publish.py). What is gone back to was restored
by its digest and, where there is a key, is signed by it or by one that the operator names: the chain of
manifests alone does not tell who has written one of them. The catalogue is not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from contracts.errors import SnapshotError
from contracts.manifest import Manifest
from contracts.minisign import PublicKey
from publisher.history import find_link, find_signer, walk_history
from publisher.options import Environment, PublishOptions
from publisher.pointer import Pointer
from publisher.publish import PublishRun
from publisher.result import Outcome, PublishResult
from publisher.state import Candidate, State
from publisher.waiting import may_follow
from stores.base import Store
from stores.progress import Progress


def roll_back(
    store: Store,
    state_dir: Path | str,
    to: str,
    options: PublishOptions | None = None,
    *,
    source_db: Path | str | None = None,
    trusted: Sequence[PublicKey] = (),
    progress: Progress | None = None,
    environment: Environment | None = None,
) -> PublishResult:
    """Publish an earlier database again, and hold it: later publishes only renew, until one with `resume`.

    `to` is a sequence, a snapshot id, or the digest of a manifest or at least its first 8 digits.
    `state_dir` is that of the publishes. With a `signing_key` the earlier manifest must be signed by it or by
    one of `trusted`, the keys before it; without, by one of `trusted` if there are any. The catalogue
    `source_db` is only asked which places must not be in the database. "unchanged" is what it says when that
    very database is held already; a repetition of a rollback does no harm.
    Raises:
        SnapshotError: when there is no such snapshot, it is what is published, or it cannot be restored.
        HistoryError: when it may be beyond a link of the history that is broken.
        SignatureError: when the earlier manifest is not signed by a key that is trusted, or the key has
            handed over.
        ClockError, UnsuitableStore, ConflictError, EquivocationError, MalformedError, UnsupportedError,
        DigestMismatchError, AccessDenied, StoreUnavailable, StoreError, OSError: as `publish`.
    """
    run = _Rollback(
        None if source_db is None else Path(source_db),
        store,
        State(Path(state_dir)),
        options or PublishOptions(),
        progress or Progress(),
        environment or Environment(),
    )
    run.to, run.trusted = to, tuple(trusted)
    return run.run()


class _Rollback(PublishRun):
    to: str
    trusted: tuple[PublicKey, ...]
    _earlier: Manifest

    def _load_candidate(self, base: Pointer | None) -> Candidate | None:
        """What an interrupted rollback to the same database left ready."""
        self._earlier = self._find_earlier(base)
        candidate = self._state.candidate.load()
        if candidate is None or not candidate.held or candidate.database != self._earlier.database:
            return None
        if self._state.load_database(candidate.database) is None:
            return None
        return candidate if may_follow(candidate, self._store, base) else None

    def _find_earlier(self, base: Pointer | None) -> Manifest:
        """The manifest to go back to, when it may be gone back to."""
        if base is None:
            raise SnapshotError("nothing was ever published to this store")
        link = find_link(walk_history(self._store, base), self.to)
        key = self._options.signing_key
        trusted = [*self.trusted] + ([] if key is None else [key.public])
        if trusted:
            find_signer(self._store, link, trusted)
        if link.manifest.database == base.manifest.database and not base.manifest.held:
            raise SnapshotError(
                f"snapshot {link.manifest.sequence} has the database that is published now; there is nothing "
                "to roll back"
            )
        return link.manifest

    def _plan(self, base: Pointer | None, waiting: Candidate | None) -> tuple[Outcome, Manifest]:
        """Count what would be sent."""
        assert base is not None  # or there was nothing to find
        if base.manifest.database == self._earlier.database:
            return "unchanged", base.manifest
        return self._describe(base, waiting or self._candidates.go_back(base, self._earlier, keep=False))

    def _bring_up(self, base: Pointer | None, waiting: Candidate | None) -> tuple[Outcome, Manifest]:
        """Publish the earlier database."""
        assert base is not None  # or there was nothing to find
        if base.manifest.database == self._earlier.database:
            return "unchanged", base.manifest
        self._tidy(base, waiting)
        candidate = waiting or self._candidates.go_back(base, self._earlier)
        return "published", self._publish_candidate(candidate, base).manifest
