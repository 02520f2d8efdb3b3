"""The publisher's own folder: what lets an interrupted publish go on where it stopped.

Invariant: a candidate is in its place only when it is complete and on disk, and everything in it is named by
digest, so that a stale or damaged one is noticed. Losing the folder costs one upload and nothing else.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from contracts.digests import digest_stream
from contracts.errors import ConflictError, EquivocationError
from contracts.manifest import Blob, Database, Digest, Keyframe, SnapshotManifest
from stores.files import replace_file, sync_folder
from stores.locks import exclusive_lock


class Candidate(msgspec.Struct, frozen=True):
    """A snapshot that is ready to be uploaded, and the pointer it was made to follow (None: the first)."""

    store: str
    base: Digest | None
    snapshot: SnapshotManifest
    database: Database
    keyframe: Keyframe
    metadata_keys: frozenset[str] | None = None  # what it was exported with


class State:
    """The state folder of one store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._candidate = folder / "candidate"
        self._repository = folder / "repository"
        self._probed = folder / "probed"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; no second publisher works in it.

        Raises:
            ConflictError: when one does.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with exclusive_lock(self.folder / "lock", timeout_s=0):
                yield
        except TimeoutError as error:
            raise ConflictError(f"another publish is running with the state folder {self.folder}") from error

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder to build a candidate in; what a crash left in it is removed first."""
        folder = self.folder / "scratch"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def load_candidate(self) -> Candidate | None:
        """The candidate that waits to be published, unless it is missing or damaged."""
        try:
            candidate = msgspec.json.decode((self._candidate / "plan.json").read_bytes(), type=Candidate)
            for blob in candidate.keyframe.blobs:
                with self.blob_path(blob).open("rb") as stream:
                    if digest_stream(stream) != blob.digest:
                        return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return candidate

    def store_candidate(self, candidate: Candidate, scratch: Path) -> None:
        """Keep a candidate whose blobs lie, on disk, in `scratch / "blobs"`."""
        self.discard_candidate()
        replace_file(scratch / "plan.json", msgspec.json.encode(candidate))
        sync_folder(scratch / "blobs")
        scratch.replace(self._candidate)
        sync_folder(self.folder)

    def discard_candidate(self) -> None:
        """Forget the candidate; a crash half-way leaves one that is damaged, which counts as none."""
        (self._candidate / "plan.json").unlink(missing_ok=True)
        shutil.rmtree(self._candidate, ignore_errors=True)

    def blob_path(self, blob: Blob) -> Path:
        """Where the candidate keeps a blob."""
        return self._candidate / "blobs" / blob.digest

    def verify_repository(self, found: str | None) -> None:
        """Check that the store holds the repository that was published to before, if any was.

        Raises:
            EquivocationError: when it holds another one, or none (`found` is None).
        """
        try:
            known = self._repository.read_text("utf-8")
        except FileNotFoundError:
            return
        if found is None:
            raise EquivocationError(
                f"the store has no manifest, although repository {known} was published to it; if it is "
                f"mounted, and was emptied on purpose, delete {self._repository}"
            )
        if found != known:
            raise EquivocationError(
                f"the store holds the repository {found}, not {known} that was published to it before; "
                f"if that is meant, delete {self._repository}"
            )

    def store_repository(self, repository: str) -> None:
        """Remember which repository the store holds."""
        if not self._repository.exists():
            replace_file(self._repository, repository.encode())

    def is_probed(self, address: str) -> bool:
        """Whether the store at this address is known to honour preconditions."""
        try:
            return self._probed.read_text("utf-8") == address
        except OSError:
            return False

    def store_probed(self, address: str) -> None:
        """Remember that the store at this address honours preconditions."""
        replace_file(self._probed, address.encode())
