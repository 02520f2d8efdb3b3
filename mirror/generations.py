"""The databases that a mirror serves and served, in a folder that web processes read at any moment.

Invariant: `current` always names a generation that is whole and on disk. What is being read is never
replaced: a new database gets a new folder, and only the small file `current` moves. A reader that holds an
older generation keeps it until it lets go; the one before the current stays for those about to open it.

    current                      names the generation, and the manifest it came by
    generations/<name>/catalog_read.db
    seen.json                    what mirror/trust.py remembers
    incoming/                    a download under way
    lock                         held while a sync runs
"""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import quote

import msgspec

from contracts.errors import MalformedError, ObjectMissing
from contracts.manifest import Database, Manifest, Moment, Sequence
from contracts.read_model import DATABASE_NAME
from mirror.trust import Seen
from stores.files import replace_file, sync_file, sync_folder

T = TypeVar("T")
_OPEN_TRIES = 5  # two swaps would have to fall into each of them


class Current(msgspec.Struct, frozen=True):
    """The generation that is served, and what is to be known of the snapshot it stands for.

    `etag` is the entity tag that the pointer came with, `before` the generation that was served before this
    one and stays beside it, "" when there is none. Small on purpose: every `connect` reads it.
    """

    generation: str
    database: Database
    snapshot_id: str
    sequence: Sequence
    published_at: Moment
    expires_at: Moment
    etag: str
    before: str = ""


class Held(NamedTuple):
    """The database that is served, and its file: of the right size, perhaps damaged."""

    database: Database
    path: Path


class Generations:
    """The folder of one mirror."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.incoming = folder / "incoming"
        self.lock = folder / "lock"
        self._current = folder / "current"
        self._seen = folder / "seen.json"
        self._generations = folder / "generations"

    def load_current(self) -> Current | None:
        """What is served, or None before the first sync.

        Raises:
            MalformedError: when the file is damaged.
        """
        return _load(self._current, Current)

    def load_intact_current(self) -> Current | None:
        """What is served, or None when that is not known: the next sync then makes it anew."""
        try:
            return self.load_current()
        except MalformedError:
            return None

    def load_seen(self) -> Seen | None:
        """What is remembered, or None before the first sync.

        Raises:
            MalformedError: when the file is damaged.
        """
        return _load(self._seen, Seen)

    def store_seen(self, seen: Seen) -> None:
        """Remember; on disk when this returns."""
        replace_file(self._seen, msgspec.json.encode(seen))

    def forget_seen(self) -> None:
        """Trust the next pointer as a fresh mirror would."""
        self._seen.unlink(missing_ok=True)

    def prepare_incoming(self) -> Path:
        """An empty folder for a download; what an interrupted one left, and old generations, make room."""
        self.clear_incoming()
        self._delete_unserved()
        self.incoming.mkdir(parents=True)
        return self.incoming

    def clear_incoming(self) -> None:
        """Remove what a download left."""
        shutil.rmtree(self.incoming, ignore_errors=True)

    def load_held(self) -> Held | None:
        """The database that is served, or None when its file is missing or cut short."""
        current = self.load_intact_current()
        if current is None:
            return None
        held = Held(current.database, self._path(current))
        try:
            is_whole = held.path.stat().st_size == held.database.size_bytes
        except FileNotFoundError:
            return None
        return held if is_whole else None

    def has_database(self, database: Database) -> bool:
        """Whether the generation that is served is this database."""
        held = self.load_held()
        return held is not None and held.database == database

    def adopt(self, manifest: Manifest, etag: str) -> None:
        """Serve the verified database in `incoming` from now on.

        It always gets a folder of its own, also when it repairs the one that is served: somebody reads that.
        """
        before = self.load_intact_current()
        try:
            sync_file(self.incoming / DATABASE_NAME)
            sync_folder(self.incoming)
            self._generations.mkdir(exist_ok=True)
            name = self._free_name(f"{manifest.sequence:08d}-{manifest.database.digest[:12]}")
            self.incoming.replace(self._generations / name)
            sync_folder(self._generations)
            self._store_current(name, manifest, etag, before.generation if before else "")
        finally:
            # After a failure it would lie there unserved, on a disk that is perhaps full.
            self.clear_incoming()
            self._delete_unserved()

    def renew(self, manifest: Manifest, etag: str) -> None:
        """Serve the same database as a later snapshot."""
        current = self.load_current()
        if current is None:
            raise ObjectMissing(DATABASE_NAME, str(self.folder))
        self._store_current(current.generation, manifest, etag, current.before)

    def connect(self, check_same_thread: bool) -> sqlite3.Connection:
        """A read-only connection to the newest generation.

        Raises:
            ObjectMissing: before the first sync.
            MalformedError: when `current`, or what it names, is damaged.
        """
        for _ in range(_OPEN_TRIES):
            current = self.load_current()
            if current is None:
                break
            path = self._path(current)
            try:
                return open_database(path, check_same_thread)
            except sqlite3.OperationalError as error:
                if self.load_current() == current:
                    raise MalformedError(
                        f"{path} cannot be read ({error}); the next sync mends it"
                    ) from error
                # Otherwise it was swapped twice since `current` was read.
        raise ObjectMissing(DATABASE_NAME, str(self.folder))

    def _path(self, current: Current) -> Path:
        return self._generations / current.generation / DATABASE_NAME

    def _free_name(self, name: str) -> str:
        """This name, or one that goes on from it: a crash, or what a repair replaces, may have taken it."""
        number, free = 1, name
        while (self._generations / free).exists():
            number += 1
            free = f"{name}-{number}"
        return free

    def _store_current(self, generation: str, manifest: Manifest, etag: str, before: str) -> None:
        current = Current(
            generation,
            manifest.database,
            manifest.snapshot_id,
            manifest.sequence,
            manifest.published_at,
            manifest.expires_at,
            etag,
            before,
        )
        replace_file(self._current, msgspec.json.encode(current))

    def _delete_unserved(self) -> None:
        """Delete the generations that nobody can open any more, also what a crash left before a swap."""
        try:
            current = self.load_current()
        except (MalformedError, OSError):
            return  # which they are is not known; the next swap tells
        kept = {current.generation, current.before} if current else set()
        for generation in self._generations.glob("*"):
            if generation.name not in kept:
                # On Windows an open file stays; the next swap tries again.
                shutil.rmtree(generation, ignore_errors=True)


def open_database(path: Path, check_same_thread: bool = True) -> sqlite3.Connection:
    """A connection that reads a database which never changes, and runs no code of its schema."""
    connection = sqlite3.connect(
        f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1",
        uri=True,
        isolation_level=None,
        check_same_thread=check_same_thread,
    )
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA query_only=ON")
    return connection


def _load(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedError(
            f"{path} is damaged ({error}); delete it, and the next sync makes it anew"
        ) from error
