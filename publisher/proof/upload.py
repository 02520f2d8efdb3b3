"""Reads back what a publish has put into a store, as a mirror would read it.

Invariant: what is not what it should be is named by its key, and never deleted or overwritten here: somebody
may be reading it, and nobody knows yet what else that store has lost. Memory is bounded by a batch of a delta
and by the stores' pieces; the disk takes the pages of one delta.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import BinaryIO

from contracts.digests import digest_bytes
from contracts.errors import DigestMismatchError, MalformedError, ObjectMissing
from contracts.keyframe import decode_segment
from contracts.layout import blob_key
from contracts.manifest import Blob, Delta, Keyframe
from contracts.page_delta_decoder import DeltaDecoder
from contracts.read_model import PAGE_BYTES
from stores.base import Store, read_whole
from stores.restore import fetch_blob

# Of a keyframe: all of a small one, and half a minute of a home line's download of any other.
_SAMPLE_BYTES = 32 << 20
_SAMPLE_SHARE = 0.05
_RUN_PAGES = 256  # hashed at a time: 1 MiB
_IN_BASE = -1

Report = Callable[[int], None]
"""Called with each number of bytes that arrived."""


def plan_sample(sizes: Sequence[int], random: Random) -> list[int]:
    """Which blobs of a keyframe to read back: the first, the last, and others while they fit 32 MiB or 5 %.

    `sizes` are their stored bytes.
    """
    chosen = sorted({0, len(sizes) - 1}) if sizes else []
    left = max(_SAMPLE_BYTES, int(sum(sizes) * _SAMPLE_SHARE)) - sum(sizes[index] for index in chosen)
    others = [index for index in range(len(sizes)) if index not in chosen]
    random.shuffle(others)
    for index in others:
        if sizes[index] <= left:
            left -= sizes[index]
            chosen.append(index)
    return sorted(chosen)


def verify_blobs(store: Store, blobs: Iterable[Blob], report: Report) -> None:
    """Read these blobs in full, and check their digests.

    Raises:
        DigestMismatchError: when the store holds other bytes.
        ObjectMissing, AccessDenied, StoreUnavailable, StoreError: as the store does.
    """
    for blob in blobs:
        with _fetched(store, blob, report):
            pass


def verify_applied_delta(store: Store, delta: Delta, base: Path, scratch: Path, report: Report) -> None:
    """Read a delta in full, apply it to the database in the file `base`, and check the result's digest.

    The decoder is the mirrors' own. What it writes goes to a file in `scratch`, and the result is hashed page
    by page from the two: as strong as applying it to a copy, without writing a whole database for an hour's
    change.
    Raises:
        MalformedError: when the blobs are those that were made, but do not lead to `delta.target`.
        DigestMismatchError, ObjectMissing, …: as `verify_blobs`.
        OSError: when `base` cannot be read, or the disk is full.
    """
    base_pages, target_pages = delta.base.size_bytes // PAGE_BYTES, delta.target.size_bytes // PAGE_BYTES
    with base.open("rb") as old, (scratch / "applied-pages").open("x+b") as new:
        overlay = _Overlay(old, new, target_pages)
        # It has the part of BinaryIO that a decoder uses.
        decoder = DeltaDecoder(overlay, base_pages, target_pages)  # type: ignore[arg-type]
        for blob in delta.blobs:
            with _fetched(store, blob, report) as pieces:
                decoder.apply(pieces)
        decoder.finish()
        found = overlay.digest()
    if found != delta.target.digest:
        raise MalformedError(f"it makes a database with the digest {found} instead of {delta.target.digest}")


def verify_keyframe_blobs(
    store: Store, keyframe: Keyframe, sample: Collection[int], database: Path | None, report: Report
) -> None:
    """Read a sample of a keyframe's blobs, compare it with the file `database`, and ask for the rest's size.

    Without `database`, what a blob decompresses to is held to its size alone, beside its digest.
    Raises:
        MalformedError: when a blob is the one that was made, but does not hold its segment.
        DigestMismatchError, ObjectMissing, …: as `verify_blobs`.
        OSError: when `database` cannot be read.
    """
    sizes = keyframe.segment_sizes()
    read = {keyframe.blobs[index].digest for index in sample}
    for blob in {blob.digest: blob for blob in keyframe.blobs if blob.digest not in read}.values():
        _verify_size(store, blob)
    for index in sample:
        with _fetched(store, keyframe.blobs[index], report) as pieces:
            segment = decode_segment(pieces, sizes[index])
            if not _is_segment(segment, database, index * keyframe.segment_bytes):
                raise MalformedError(
                    f"segment {index + 1} of the keyframe is not that of its database; nothing was "
                    "published: run publish again"
                )


def verify_stored(store: Store, key: str, content: bytes) -> None:
    """Read back a small object that must be exactly `content`.

    Raises:
        DigestMismatchError: when it is not.
        ObjectMissing, AccessDenied, StoreUnavailable, StoreError: as the store does.
    """
    with _blaming(store, key):
        try:
            found = read_whole(store.get(key), len(content))
        except MalformedError as error:
            raise DigestMismatchError(key, digest_bytes(content), "more bytes") from error
        if found != content:
            raise DigestMismatchError(
                key,
                f"{digest_bytes(content)} in {len(content)} bytes",
                f"{digest_bytes(found)} in {len(found)} bytes",
            )


def _verify_size(store: Store, blob: Blob) -> None:
    key = blob_key(blob.digest)
    with _blaming(store, key):
        found = store.head(key).size_bytes
        if found != blob.size_bytes:
            raise DigestMismatchError(key, f"{blob.digest} in {blob.size_bytes} bytes", f"{found} bytes")


@contextmanager
def _fetched(store: Store, blob: Blob, report: Report) -> Iterator[Generator[bytes]]:
    """The pieces of a blob, all of which are read in the end: what its digest says comes before all else."""
    key = blob_key(blob.digest)
    with _blaming(store, key), closing(fetch_blob(store, blob, report)) as pieces:
        try:
            yield pieces
        except MalformedError:
            _drain(pieces)
            raise
        _drain(pieces)


@contextmanager
def _blaming(store: Store, key: str) -> Iterator[None]:
    """Say of what a store has lost or spoilt what is to be done about it."""
    try:
        yield
    except ObjectMissing as error:
        where = f"nothing was published, run publish again: {store.address} answered that it has it, but"
        raise ObjectMissing(key, where) from error
    except DigestMismatchError as error:
        raise DigestMismatchError(
            f"{key} in {store.address}",
            error.expected,
            f"{error.found}; nothing was published: delete that object and run publish again",
        ) from error


def _drain(pieces: Iterable[bytes]) -> None:
    for _ in pieces:
        pass


def _is_segment(segment: Iterable[bytes], database: Path | None, start: int) -> bool:
    """Whether these pieces are what the file holds from `start` on."""
    if database is None:
        _drain(segment)
        return True
    with database.open("rb") as stream:
        stream.seek(start)
        return all(piece == stream.read(len(piece)) for piece in segment)


class _Overlay:
    """A database that is written to without being changed: its new pages lie in a file beside it.

    What is read is always the base: a delta reads a page before it writes it, and writes it once.
    """

    def __init__(self, base: BinaryIO, written: BinaryIO, page_count: int) -> None:
        self._base = base
        self._written = written
        self._places = array("q", [_IN_BASE]) * page_count  # of each page, where in `written` it begins
        self._at = 0

    def seek(self, offset: int) -> int:
        self._at = offset
        return offset

    def read(self, size_bytes: int) -> bytes:
        self._base.seek(self._at)
        content = self._base.read(size_bytes)
        self._at += len(content)
        return content

    def write(self, content: bytes) -> int:
        place = self._written.seek(0, 2)
        self._written.write(content)
        for offset in range(0, len(content), PAGE_BYTES):
            self._places[(self._at + offset) // PAGE_BYTES] = place + offset
        self._at += len(content)
        return len(content)

    def truncate(self, size_bytes: int) -> int:
        return size_bytes  # `page_count` says it already

    def digest(self) -> str:
        """The digest of the pages of the base and the written ones, in order."""
        found = hashlib.sha256()
        start = 0
        while start < len(self._places):
            end = start + 1
            while end < len(self._places) and end - start < _RUN_PAGES and self._goes_on(end):
                end += 1
            place, stream = self._places[start], self._written
            if place == _IN_BASE:
                place, stream = start * PAGE_BYTES, self._base
            stream.seek(place)
            found.update(stream.read((end - start) * PAGE_BYTES))
            start = end
        return found.hexdigest()

    def _goes_on(self, page: int) -> bool:
        """Whether a page follows the one before it where that lies."""
        before, place = self._places[page - 1], self._places[page]
        return before == place if _IN_BASE in (before, place) else place == before + PAGE_BYTES
