"""A store in a folder, with the bucket's layout as its files.

Invariant: a key names either nothing or a whole object, whatever line a writer dies at; two processes that
update one object are told apart, because comparing and renaming happen under one lock that the kernel frees
with its holder. The entity tag of a small object is the digest of its bytes, so that equal means equal; that
of a large one, which nothing ever updates, is what the file system says of the file.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import BinaryIO

from contracts.digests import digest_stream
from contracts.errors import (
    AccessDenied,
    MalformedError,
    ObjectMissing,
    PreconditionFailed,
    StoreError,
    StoreUnavailable,
)
from stores.base import (
    Create,
    ListedObject,
    ObjectInfo,
    Overwrite,
    PutMode,
    Reading,
    stream_pieces,
    verify_mode,
)
from stores.files import sync_folder
from stores.locks import exclusive_lock

_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_INCOMING = ".incoming"
_LOCK = ".lock"
_DIGEST_MAX_BYTES = 1 << 20  # covers the pointer and every manifest (contracts/manifest.py)
# What waiting does not mend.
_LASTING = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EFBIG,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
}
# The lock is held for a comparison and a rename; only a stopped process holds it this long.
_LOCK_TIMEOUT_S = 30.0
# An upload that was abandoned; no write of one object takes a day.
_ABANDONED_S = 86_400.0


class FolderStore:
    """Objects as files beneath `root`, which the first write creates."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.address = str(root)

    def head(self, key: str) -> ObjectInfo:
        with _store_errors(key), self._open(key) as stream:
            return _info(stream)

    def get(self, key: str, start: int = 0) -> Reading:
        stream = self._open(key)
        try:
            with _store_errors(key):
                info = _info(stream)
                stream.seek(start)
        except BaseException:
            stream.close()
            raise
        return Reading(info, _pieces(stream, key), stream.close)

    def get_if_changed(self, key: str, etag: str) -> Reading | None:
        reading = self.get(key)
        if reading.info.etag != etag:
            return reading
        reading.close()
        return None

    def put(self, key: str, body: bytes | BinaryIO, mode: PutMode) -> str:
        target = self._path(key)
        with _store_errors(key):
            if isinstance(mode, Create) and target.exists():
                raise PreconditionFailed(f"{key} exists already in {self.root}")
            incoming = self._prepare(target.parent)
            temporary = incoming / f"{secrets.token_hex(8)}"
            try:
                etag = _write(temporary, body)
                with exclusive_lock(self.root / _LOCK, _LOCK_TIMEOUT_S):
                    self._verify(key, mode)
                    temporary.replace(target)
                    sync_folder(target.parent)
            finally:
                temporary.unlink(missing_ok=True)
            return etag

    def delete(self, key: str) -> None:
        target = self._path(key)
        with _store_errors(key):
            if target.exists():
                with exclusive_lock(self.root / _LOCK, _LOCK_TIMEOUT_S):
                    target.unlink(missing_ok=True)
                    sync_folder(target.parent)

    def list_objects(self, prefix: str = "") -> list[ListedObject]:
        with _store_errors(prefix or str(self.root)):
            return [
                ListedObject(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))
                for key, status in _walk(self.root, "")
                if key.startswith(prefix)
            ]

    def now(self) -> datetime | None:
        return None  # a folder's clock is this machine's, or cannot be asked

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise MalformedError(f"{key!r} cannot be a key of a folder store")
        return self.root / key

    def _open(self, key: str) -> BufferedReader:
        path = self._path(key)
        with _store_errors(key):
            try:
                return path.open("rb")
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise ObjectMissing(key, str(self.root)) from None

    def _prepare(self, folder: Path) -> Path:
        """Make the folders a write needs, their names on disk; remove what a crash left long ago."""
        incoming = self.root / _INCOMING
        for wanted in (self.root, incoming, folder):
            if not wanted.is_dir():
                wanted.mkdir(parents=True, exist_ok=True)
                sync_folder(wanted.parent)
        for abandoned in incoming.iterdir():
            with suppress(FileNotFoundError):  # another writer has just finished with it
                if time.time() - abandoned.stat().st_mtime > _ABANDONED_S:
                    abandoned.unlink()
        return incoming

    def _verify(self, key: str, mode: PutMode) -> None:
        if isinstance(mode, Overwrite):
            return
        try:
            found = self.head(key).etag
        except ObjectMissing:
            found = None
        verify_mode(key, mode, found)


@contextmanager
def _store_errors(key: str) -> Iterator[None]:
    try:
        yield
    except StoreError:
        raise
    except PermissionError as error:
        raise AccessDenied(f"no right to {key}: {error}") from error
    except OSError as error:  # the lock's TimeoutError is one too
        if error.errno in _LASTING:
            raise StoreError(f"{key}: {error.strerror}: {error.filename or key}") from error
        raise StoreUnavailable(f"{key}: {error}") from error


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    """The keys beneath a folder. What is hidden is ours, and what goes while we look was deleted."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        key = prefix + entry.name
        if not _KEY.fullmatch(key):
            continue
        if entry.is_dir():
            yield from _walk(folder / entry.name, key + "/")
            continue
        with suppress(FileNotFoundError):
            yield key, entry.stat()


def _info(stream: BufferedReader | BufferedRandom) -> ObjectInfo:
    status = os.fstat(stream.fileno())
    if status.st_size > _DIGEST_MAX_BYTES:
        return ObjectInfo(status.st_size, f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}")
    etag = digest_stream(stream)
    stream.seek(0)
    return ObjectInfo(status.st_size, etag)


def _pieces(stream: BinaryIO, key: str) -> Iterator[bytes]:
    with stream, _store_errors(key):
        yield from stream_pieces(stream)


def _write(path: Path, body: bytes | BinaryIO) -> str:
    """Write a new file, on disk when this returns; returns its entity tag."""
    with path.open("xb+") as stream:
        for piece in (body,) if isinstance(body, bytes) else stream_pieces(body):
            stream.write(piece)
        stream.flush()
        os.fsync(stream.fileno())
        stream.seek(0)
        return _info(stream).etag
