"""Rebuilds a database from a manifest: what a mirror, and a publisher that lost its state, need.

Invariant: nothing is believed before its digest was checked; a few blobs are on their way at a time, and
memory grows neither with the database nor with the number of deltas.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event

from contracts.digests import digest_stream, verify_pieces
from contracts.errors import DigestMismatchError, MalformedError
from contracts.keyframe import decode_segment
from contracts.layout import blob_key
from contracts.manifest import Blob, Database, Delta, Keyframe
from contracts.page_delta_decoder import DeltaDecoder
from contracts.read_model import PAGE_BYTES
from contracts.route import Route
from stores.base import ReadableStore
from stores.files import clone_file

# One connection rarely fills a long link; more than a few only crowd out the website's own.
DOWNLOADS_AT_ONCE = 4
# The blobs of deltas are small: what they wait for is the answer, not the line. As many as HttpStore has
# connections.
DELTAS_AT_ONCE = 8
# Of blobs that wait for their turn. Ours have 4 MiB and a batch at most; larger ones are not fetched ahead.
AHEAD_BYTES = 32 << 20

Report = Callable[[int], None]
"""Called from several threads with each number of bytes that arrived; what it raises ends the work."""


def ignore(size_bytes: int) -> None:
    """The report to nobody."""


def restore_database(
    store: ReadableStore, route: Route, target: Path, held: Path | None = None, report: Report = ignore
) -> None:
    """Write the database at the end of a route to the new file `target`; it may not be on disk yet.

    `held` is the file of the database from which a route without a keyframe starts; it is only read.
    After an error `target` is worthless, if it is there at all.
    Raises:
        ObjectMissing, AccessDenied, StoreUnavailable, StoreError: as the store does.
        DigestMismatchError, MalformedError: when `held`, a blob or the result is not what the manifest
            promises; when `held` is the one to blame, the error says so.
        OSError: when `held` cannot be read or `target` not be written.
        ValueError: when a route without a keyframe is to start from no file.
    """
    if route.keyframe is not None:
        _restore_keyframe(store, route.keyframe, target, report)
        held = None
    elif held is not None:
        clone_file(held, target)
    else:
        raise ValueError("a route without a keyframe starts from a file, and none is held")
    try:
        _apply_deltas(store, route.deltas, target, report)
        verify_database(target, route.database)
    except (DigestMismatchError, MalformedError):
        if held is not None:
            verify_database(held, route.start)
        raise


def fetch_blob(store: ReadableStore, blob: Blob, report: Report = ignore) -> Generator[bytes]:
    """The bytes of a blob, whose number and digest are checked with the last piece.

    Raises: as `restore_database`.
    """
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
        raise DigestMismatchError(f"the database {path}", database.digest, found)


def _restore_keyframe(store: ReadableStore, keyframe: Keyframe, target: Path, report: Report) -> None:
    """Write the keyframe's database to the new file `target`. Its blobs are checked, not the whole."""
    with target.open("xb") as stream:
        stream.truncate(keyframe.database.size_bytes)

    with _downloads(DOWNLOADS_AT_ONCE, report) as (executor, count):

        def restore_segment(index: int, blob: Blob, size_bytes: int) -> None:
            with target.open("r+b") as stream:
                stream.seek(index * keyframe.segment_bytes)
                with closing(fetch_blob(store, blob, count)) as stored:
                    for piece in decode_segment(stored, size_bytes):
                        stream.write(piece)

        sizes = keyframe.segment_sizes()
        segments = [
            executor.submit(restore_segment, index, blob, size)
            for index, (blob, size) in enumerate(zip(keyframe.blobs, sizes, strict=True))
        ]
        for segment in as_completed(segments):
            segment.result()


def _apply_deltas(store: ReadableStore, deltas: Sequence[Delta], target: Path, report: Report) -> None:
    """Turn the first delta's base in the file `target` into the last one's target, in place."""
    blobs = [blob for delta in deltas for blob in delta.blobs]
    with target.open("r+b") as stream, closing(_fetch_in_order(store, blobs, report)) as fetched:
        for delta in deltas:
            base_pages = delta.base.size_bytes // PAGE_BYTES
            decoder = DeltaDecoder(stream, base_pages, delta.target.size_bytes // PAGE_BYTES)
            for _ in delta.blobs:
                decoder.apply(next(fetched))
            decoder.finish()


def _fetch_in_order(
    store: ReadableStore, blobs: Iterable[Blob], report: Report
) -> Generator[Iterable[bytes]]:
    """Each blob as its pieces, fetched before its turn where memory allows; a large one as they arrive."""
    upcoming = deque(blobs)
    ahead: deque[tuple[Blob, Future[list[bytes]]]] = deque()
    with _downloads(DELTAS_AT_ONCE, report) as (executor, count):

        def fetch(blob: Blob) -> list[bytes]:
            with closing(fetch_blob(store, blob, count)) as stored:
                return list(stored)

        def has_room(blob: Blob) -> bool:
            ahead_bytes = sum(other.size_bytes for other, _ in ahead)
            return len(ahead) < DELTAS_AT_ONCE and ahead_bytes + blob.size_bytes <= AHEAD_BYTES

        while upcoming or ahead:
            while upcoming and has_room(upcoming[0]):
                blob = upcoming.popleft()
                ahead.append((blob, executor.submit(fetch, blob)))
            if ahead:
                yield ahead[0][1].result()
                ahead.popleft()  # only now: until it is applied it takes room
            else:
                with closing(fetch_blob(store, upcoming.popleft(), count)) as stored:
                    yield stored


@contextmanager
def _downloads(at_once: int, report: Report) -> Iterator[tuple[ThreadPoolExecutor, Report]]:
    """Threads to download in, and what they report to: when the work ends early, they end with it."""
    stopped = Event()

    def count(size_bytes: int) -> None:
        if stopped.is_set():
            raise CancelledError
        report(size_bytes)

    executor = ThreadPoolExecutor(at_once, "download")
    try:
        yield executor, count
    finally:
        stopped.set()
        executor.shutdown(wait=True, cancel_futures=True)
