"""The publisher's own folder: what lets a publish send only what changed, and go on where one stopped.

Invariant: what is in its place is complete and on disk, and named by digest, so that anything stale or
damaged is noticed before it is used. Losing the folder costs one download or one keyframe, nothing else. It
holds at most the database that is published, the one that is to follow, and the blobs of both.

    databases/<digest>.db   what was published last: the base of the next delta
    candidate/              the snapshot that is to follow (publisher/spool.py)
    keyframe/               a keyframe that follows when that is live
    repository              which repository the store holds
    published               what was last published from here (publisher/continuity.py)
    profile                 what the store was found to do (publisher/profile.py)
    rebuilt                 how large a fresh export was
    settings, assets        what is known of a database; only makes its next refresh faster
    scratch/                what is being made
    lock                    held while a publish runs
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from contracts.digests import digest_stream
from contracts.errors import ConflictError, EquivocationError
from contracts.manifest import Blob, Database, Delta, Digest, Keyframe, Manifest, SnapshotManifest
from publisher.continuity import Published, verify_continues
from publisher.differences import TableChanges
from publisher.drift import Measure
from publisher.known import NOTHING_KNOWN, Known
from publisher.profile import Profile
from publisher.spool import Spool
from stores.files import replace_file, sync_file, sync_folder
from stores.locks import exclusive_lock


class Candidate(msgspec.Struct, frozen=True):
    """A snapshot that is ready to be uploaded, and the pointer it was made to follow (None: the first).

    It has a delta, a keyframe, or both. `tables` and `pages` tell what changed, where that is known.
    """

    store: str
    base: Digest | None
    snapshot: SnapshotManifest
    database: Database
    delta: Delta | None
    keyframe: Keyframe | None
    metadata_keys: frozenset[str] | None = None  # what it was made with
    tables: dict[str, TableChanges] = {}
    pages: int | None = None
    renamed_for: Digest | None = None  # the list of condemned objects whose names its blobs avoid
    held: bool = False  # a rollback's: what is published before is held from then on

    @property
    def blobs(self) -> Collection[Blob]:
        """All of its blobs, each once."""
        parts = [part.blobs for part in (self.delta, self.keyframe) if part is not None]
        return {blob.digest: blob for blobs in parts for blob in blobs}.values()


class WaitingKeyframe(msgspec.Struct, frozen=True):
    """A keyframe of a database that is published already, ready to be uploaded."""

    store: str
    keyframe: Keyframe
    metadata_keys: frozenset[str] | None = None  # with which it was made
    renamed_for: Digest | None = None  # as a candidate's

    @property
    def blobs(self) -> Collection[Blob]:
        """All of its blobs, each once."""
        return {blob.digest: blob for blob in self.keyframe.blobs}.values()


class State:
    """The state folder of one store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.candidate = Spool(folder / "candidate", Candidate)
        self.keyframe = Spool(folder / "keyframe", WaitingKeyframe)
        self._databases = folder / "databases"
        self._repository = folder / "repository"
        self._published = folder / "published"
        self._profile = folder / "profile"
        self._rebuilt = folder / "rebuilt"
        self._settings = folder / "settings"
        self._assets = folder / "assets"

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
        """An empty folder to build in, with one for blobs in it; what a crash left there is removed first."""
        folder = self.folder / "scratch"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "blobs").mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def load_database(self, database: Database) -> Path | None:
        """Where this database lies; None when it is missing or damaged."""
        path = self.database_path(database)
        try:
            with path.open("rb") as stream:
                return path if digest_stream(stream) == database.digest else None
        except OSError:
            return None

    def store_database(self, path: Path, database: Database) -> None:
        """Keep a database file that is on disk, by renaming it.

        Raises:
            OSError: when it cannot be.
        """
        self._databases.mkdir(exist_ok=True)
        path.replace(self.database_path(database))
        sync_folder(self._databases)

    def find_held(self, manifest: Manifest) -> Database | None:
        """The newest database on the manifest's chain whose file is there, whatever it holds."""
        nodes = reversed(manifest.nodes)
        return next((node for node in nodes if self.database_path(node).exists()), None)

    def delete_databases(self, kept: Collection[Database]) -> None:
        """Delete every database but these."""
        names = {self.database_path(database).name for database in kept}
        for path in self._databases.glob("*"):
            if path.name not in names:
                path.unlink()

    def load_known(self, database: Database) -> Known:
        """What is known of this database, for `refresh_database`."""
        try:
            digest, settings, assets = self._settings.read_text("utf-8").split()
            if digest != database.digest:
                return NOTHING_KNOWN
            with self._assets.open("rb") as stream:
                return Known(settings, self._assets if digest_stream(stream) == assets else None)
        except (OSError, ValueError):
            return NOTHING_KNOWN

    def store_known(self, database: Database, known: Known) -> None:
        """Remember what a refresh says of the database that it made or left alone; takes its file over."""
        if known.settings is None or known == self.load_known(database):
            return
        assets = "-"
        if known.assets is not None:
            with known.assets.open("rb") as stream:
                assets = digest_stream(stream)
            sync_file(known.assets)
            known.assets.replace(self._assets)
            sync_folder(self.folder)
        replace_file(self._settings, f"{database.digest} {known.settings} {assets}\n".encode())

    def database_path(self, database: Database) -> Path:
        """Where the state keeps this database, if it does."""
        return self._databases / f"{database.digest}.db"

    def verify_repository(self, found: str | None) -> None:
        """Check that the store holds the repository that was published to before, if any was.

        Raises:
            EquivocationError: when it holds another one, or none (`found` is None).
        """
        try:
            known = self._repository.read_text("utf-8")
        except FileNotFoundError:
            return
        except UnicodeDecodeError as error:
            raise EquivocationError(
                f"{self._repository} is damaged, so nobody knows which repository was published to; if the "
                f"store is the right one, delete that file"
            ) from error
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

    def verify_continues(self, found: Manifest, is_ours: Callable[[], bool]) -> None:
        """Check that what the store serves may be continued from here, as publisher/continuity.py says.

        Raises:
            RollbackError, SignatureError: when it may not.
        """
        verify_continues(found, self.load_published(), is_ours, str(self._published))

    def load_published(self) -> Published | None:
        """What was last published from here, if that is known."""
        try:
            return msgspec.json.decode(self._published.read_bytes(), type=Published)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def store_published(self, manifest: Manifest, digest: Digest) -> None:
        """Remember what was published."""
        published = Published(manifest.repository, manifest.sequence, digest)
        replace_file(self._published, msgspec.json.encode(published))

    def load_profile(self) -> Profile | None:
        """What was last found of a store, if that is known; its address says which one it was."""
        try:
            return msgspec.json.decode(self._profile.read_bytes(), type=Profile)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def store_profile(self, profile: Profile) -> None:
        """Remember what was found of a store."""
        replace_file(self._profile, msgspec.json.encode(profile))

    def load_rebuilt(self) -> Measure | None:
        """How large the last fresh export was, if that is known."""
        try:
            return msgspec.json.decode(self._rebuilt.read_bytes(), type=Measure)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def store_rebuilt(self, measure: Measure) -> None:
        """Remember how large a fresh export was."""
        replace_file(self._rebuilt, msgspec.json.encode(measure))
