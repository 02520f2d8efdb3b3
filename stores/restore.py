"""Rebuilds a database from a manifest: what a fresh mirror and a publisher without state need.

Invariant: nothing is believed before its digest was checked; blobs may come in any order, a few at a time,
and memory does not grow with the database.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path
from threading import Event

from contracts.digests import digest_stream, verify_pieces
from contracts.errors import DigestMismatchError
from contracts.keyframe import decode_segment
from contracts.layout import blob_key
from contracts.manifest import Blob, Database, Keyframe
from stores.base import ReadableStore

# One connection rarely fills a long link; more than a few only crowd out the website's own.
DOWNLOADS_AT_ONCE = 4


def restore_keyframe(
    store: ReadableStore,
    keyframe: Keyframe,
    target: Path,
    report: Callable[[int], None] = lambda size_bytes: None,
) -> None:
    """Write the keyframe's database to the new file `target`; it may not be on disk yet.

    `report` is called from several threads with each number of bytes that arrived; what it raises ends
    the work.
    Raises:
        ObjectMissing, AccessDenied, StoreUnavailable: as the store does.
        DigestMismatchError, MalformedError: when a blob or the result is not what the manifest promises.
            `target` is then worthless.
    """
    with target.open("xb") as stream:
        stream.truncate(keyframe.database.size_bytes)

    stopped = Event()

    def count(size_bytes: int) -> None:
        if stopped.is_set():
            raise CancelledError
        report(size_bytes)

    def restore_segment(index: int, blob: Blob, size_bytes: int) -> None:
        with target.open("r+b") as stream:
            stream.seek(index * keyframe.segment_bytes)
            with closing(fetch_blob(store, blob, count)) as stored:
                for piece in decode_segment(stored, size_bytes):
                    stream.write(piece)

    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE, "download") as executor:
        sizes = keyframe.segment_sizes()
        segments = [
            executor.submit(restore_segment, index, blob, size)
            for index, (blob, size) in enumerate(zip(keyframe.blobs, sizes, strict=True))
        ]
        try:
            for segment in as_completed(segments):
                segment.result()
        except BaseException:
            stopped.set()
            executor.shutdown(wait=True, cancel_futures=True)
            raise
    verify_database(target, keyframe.database)


def fetch_blob(store: ReadableStore, blob: Blob, report: Callable[[int], None]) -> Generator[bytes]:
    """The bytes of a blob, whose digest is checked with the last piece. Raises: as `restore_keyframe`."""
    key = blob_key(blob.digest)
    with closing(store.get(key)) as reading:
        for piece in verify_pieces(reading, key, blob.digest, blob.size_bytes):
            report(len(piece))
            yield piece


def verify_database(path: Path, database: Database) -> None:
    """Check the bytes of a database file against its digest.

    Raises:
        DigestMismatchError: when they are others.
    """
    with path.open("rb") as stream:
        found = digest_stream(stream)
    if found != database.digest:
        raise DigestMismatchError(f"the database {path.name}", database.digest, found)
