"""Makes the next snapshot from the catalogue and from what was published last.

Invariant: nothing is sent and nothing that is published is touched; a candidate counts only when its database
and all its blobs are on disk. The database that was published is believed only by its digest: one that is
missing or damaged is fetched again, and where that is impossible, what follows it is a keyframe.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from msgspec.structs import replace

from contracts.errors import DigestMismatchError, MalformedError, ObjectMissing, SnapshotError, SourceError
from contracts.manifest import Database, Delta, Keyframe, Manifest, SnapshotManifest
from contracts.read_model import DATABASE_NAME
from contracts.route import plan_route
from publisher.chain import needs_keyframe
from publisher.deltas import WrittenDelta, compare_databases, write_delta
from publisher.drift import is_rebuild_due, measure_database
from publisher.export import Export, fill_database, seal_database
from publisher.keyframes import write_keyframe
from publisher.options import PublishOptions
from publisher.pointer import Pointer
from publisher.refresh import RefreshResult, refresh_database
from publisher.remains import erase_remains
from publisher.source import catalogue_bytes, copied_bytes
from publisher.state import Candidate, State, WaitingKeyframe
from stores.base import Store
from stores.files import clone_file, sync_file, verify_space
from stores.progress import Progress
from stores.restore import restore_database

_GROWTH = 1.25  # of a database from one publish to the next: generously, even when half of it is new


class Candidates:
    """Makes what a publish sends: for one store, in a state folder that the caller has locked.

    `source_db` is None for whoever only goes back to what was published before.
    """

    def __init__(
        self, source_db: Path | None, store: Store, state: State, options: PublishOptions, progress: Progress
    ) -> None:
        self._source_db = source_db
        self._store = store
        self._state = state
        self._options = options
        self._progress = progress

    def make(
        self, base: Pointer | None, *, rebuild: bool, now: datetime, keep: bool = True
    ) -> Candidate | None:
        """The snapshot of the catalogue as it is now; None when that is what `base` has published.

        `rebuild` exports the catalogue anew, where a refresh would do. Without `keep` it is only described.
        Raises:
            SourceError: when the catalogue cannot be exported.
            AccessDenied, StoreUnavailable, StoreError: as the store does, from which the last database may
                have to be fetched.
            OSError: when the state folder cannot be written, or its disk has no room.
        """
        self._verify_space(base, is_export=base is None or rebuild)
        with self._state.scratch() as scratch, ThreadPoolExecutor(1, "seal") as disk:
            target = scratch / DATABASE_NAME
            old = None if base is None else self._find_database(base.manifest, scratch)
            refreshed = None
            if base is not None and old is not None and not rebuild:
                refreshed = self._refresh(base, old, target, remember=keep)
            if refreshed is None:
                self._export(base, target, remember=keep)
            elif not refreshed.is_changed:
                return None
            self._progress.begin("compare")
            changed = [] if old is None else compare_databases(old, target)
            if refreshed is not None:
                erase_remains(target, changed)
            self._progress.begin("encode")
            # The digest and the disk keep one core busy, the delta the other.
            sealing = disk.submit(seal_database, target, now=now)
            delta = None
            if base is not None and old is not None:
                delta = self._write_delta(base, old, target, changed, scratch)
            export = sealing.result()
            if base is not None and export.database == base.manifest.database:
                if keep and old is None:  # neither the state nor the store had it
                    self._state.store_database(target, export.database)
                return None
            candidate = self._describe(base, target, export, refreshed, delta, scratch)
            if keep:
                self._state.store_database(target, export.database)
                if refreshed is not None:
                    self._state.store_known(export.database, refreshed.known)
                self._state.candidate.store(candidate, scratch)
            return candidate

    def go_back(self, base: Pointer, earlier: Manifest, *, keep: bool = True) -> Candidate:
        """The snapshot of an earlier manifest again, held. Without `keep` it is only described.

        Raises:
            SnapshotError: when its database cannot be restored.
            AccessDenied, StoreUnavailable, StoreError, OSError: as `make`.
        """
        databases = {base.manifest.database, earlier.database}
        missing = [each for each in databases if not self._state.database_path(each).exists()]
        needed_bytes = sum(each.size_bytes for each in missing) + earlier.database.size_bytes
        verify_space(self._state.folder, needed_bytes, "a rollback")
        with self._state.scratch() as scratch:
            target = self._find_database(earlier, scratch)
            if target is None:
                raise SnapshotError(
                    f"snapshot {earlier.sequence} cannot be restored: the store lacks some of its blobs, or "
                    "has damaged them; `music-cloud verify` names them"
                )
            old = self._find_database(base.manifest, scratch)
            delta = None
            if old is not None:
                self._progress.begin("compare")
                changed = compare_databases(old, target)
                self._progress.begin("encode")
                delta = self._write_delta(base, old, target, changed, scratch)
            fields = (getattr(earlier, name) for name in SnapshotManifest.__struct_fields__)
            export = Export(earlier.database, SnapshotManifest(*fields))
            candidate = replace(self._describe(base, target, export, None, delta, scratch), held=True)
            if keep:
                self._state.candidate.store(candidate, scratch)
            return candidate

    def make_keyframe(self, manifest: Manifest) -> WaitingKeyframe | None:
        """A keyframe of the database that is published; None when that is nowhere to be had.

        Raises:
            AccessDenied, StoreUnavailable, StoreError, OSError: as `make`.
        """
        verify_space(self._state.folder, manifest.database.size_bytes, "a keyframe")
        with self._state.scratch() as scratch:
            path = self._find_database(manifest, scratch)
            if path is None:
                return None
            keyframe = self._write_keyframe(path, manifest.database, scratch)
            waiting = WaitingKeyframe(self._store.address, keyframe, self._options.metadata_keys)
            self._state.keyframe.store(waiting, scratch)
            return waiting

    def is_rebuild_due(self, manifest: Manifest) -> bool:
        """Whether the database that is published takes much more room than a fresh export would."""
        path = self._state.load_database(manifest.database)
        if path is None:
            return False
        measure, rebuilt = measure_database(path), self._state.load_rebuilt()
        if rebuilt is None:  # the state was lost: from here on it is known
            self._state.store_rebuilt(measure)
        return is_rebuild_due(measure, rebuilt)

    @property
    def _catalogue(self) -> Path:
        if self._source_db is None:
            raise SourceError("there is no catalogue to publish from")
        return self._source_db

    def _verify_space(self, base: Pointer | None, *, is_export: bool) -> None:
        """Check that what is to be made finds room, before hours are spent on it."""
        new_bytes = catalogue_bytes(self._catalogue)
        needed_bytes = new_bytes + copied_bytes(self._catalogue)
        if base is not None:
            database = base.manifest.database
            needed_bytes = max(needed_bytes, int(database.size_bytes * _GROWTH))
            if not self._state.database_path(database).exists():
                needed_bytes += database.size_bytes
        if is_export:
            needed_bytes += new_bytes  # a part of the database, and then its blobs
        verify_space(self._state.folder, needed_bytes, "a publish")

    def _find_database(self, manifest: Manifest, scratch: Path) -> Path | None:
        """The file of the published database, from the state or else from the store; None: neither has it."""
        database = manifest.database
        self._progress.begin("verify")
        path = self._state.load_database(database)
        if path is not None:
            return path
        restored = scratch / "restored.db"
        for held in (self._state.find_held(manifest), None):
            route = plan_route(manifest, held)
            self._progress.begin("download", route.stored_bytes)
            try:
                file = None if held is None or route.keyframe else self._state.database_path(held)
                restore_database(self._store, route, restored, file, self._progress.add)
            except (DigestMismatchError, MalformedError, ObjectMissing):
                restored.unlink(missing_ok=True)
            else:
                sync_file(restored)
                self._state.store_database(restored, database)
                return self._state.database_path(database)
        return None

    def _refresh(self, base: Pointer, old: Path, target: Path, *, remember: bool) -> RefreshResult | None:
        """Bring a copy of the published database up to date; None when that cannot be done."""
        published = base.manifest.database
        self._progress.begin("refresh")
        clone_file(old, target)
        try:
            refreshed = refresh_database(
                self._catalogue,
                target,
                metadata_keys=self._options.metadata_keys,
                known=self._state.load_known(published),
            )
        except MalformedError:  # made by another version: not a row of it can be kept
            target.unlink()
            return None
        if remember and not refreshed.is_changed:
            self._state.store_known(published, refreshed.known)
        return refreshed

    def _export(self, base: Pointer | None, target: Path, *, remember: bool) -> None:
        self._verify_space(base, is_export=True)
        self._progress.begin("export")
        fill_database(self._catalogue, target, metadata_keys=self._options.metadata_keys)
        if remember:
            self._state.store_rebuilt(measure_database(target))

    def _write_delta(
        self, base: Pointer, old: Path, target: Path, changed: Sequence[int], scratch: Path
    ) -> WrittenDelta | None:
        return write_delta(
            old,
            target,
            changed,
            scratch / "blobs",
            batch_pages=self._options.batch_pages,
            max_bytes=base.manifest.keyframe.stored_bytes,
        )

    def _describe(
        self,
        base: Pointer | None,
        target: Path,
        export: Export,
        refreshed: RefreshResult | None,
        written: WrittenDelta | None,
        scratch: Path,
    ) -> Candidate:
        """The candidate, with a keyframe where one is needed."""
        delta: Delta | None = None
        keyframe: Keyframe | None = None
        if base is not None and written is not None:
            delta = Delta(base.manifest.database, export.database, written.blobs)
        if base is None or delta is None or needs_keyframe(base.manifest, delta):
            keyframe = self._write_keyframe(target, export.database, scratch)
        return Candidate(
            self._store.address,
            base and base.digest,
            export.snapshot,
            export.database,
            delta,
            keyframe,
            self._options.metadata_keys,
            refreshed.tables if refreshed else {},
            written and written.pages,
        )

    def _write_keyframe(self, path: Path, database: Database, scratch: Path) -> Keyframe:
        options = self._options
        return write_keyframe(
            path, database, scratch / "blobs", options.segment_bytes, options.level, self._progress
        )
