"""Applies a page delta to a copy of its base, in place.

Invariant: only pages that the delta may hold are ever written, each once, and none before the checksum of
its batch was good; memory is bounded by the largest batch, and by a byte for each page of the target.
That the checksum's 32 bits were right says little about the whole: the digest of the finished database
decides, and checking it is the caller's part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

from contracts.errors import MalformedError
from contracts.keyframe import EMPTY_SKIPPABLE_FRAME
from contracts.page_delta import (
    BLOB_MAGIC,
    LIST_SIZE_BYTES,
    MAX_LIST_BYTES,
    MAX_LIST_FRAME_BYTES,
    MIN_PREFIX_BYTES,
    WINDOW_LOG_MAX,
    page_runs,
    parse_page_list,
    read_pages,
)
from contracts.read_model import PAGE_BYTES
from contracts.zstd_api import zstd

_PIECE_BYTES = 16 << 10  # so that what follows a small frame is not copied over and over
_OUTPUT_BYTES = 1 << 20  # how much is decompressed at a time
_FRAME_HEADER_BYTES = 18  # at most; RFC 8878, section 3.1.1.1
# Bits of the frame header descriptor, the byte after the magic number; section 3.1.1.1.1.
_DESCRIPTOR_AT = 4
_CHECKSUM = 0b0000_0100
_CONTENT_SIZE = 0b1110_0000
_SKIPPABLE_MAGIC = EMPTY_SKIPPABLE_FRAME[:LIST_SIZE_BYTES]  # no list is as long as this would say


class DeltaDecoder:
    """One delta on its way into `database`, an open file that is a copy of the base.

    Apply its blobs in order, then finish. After any error the file is worthless.
    """

    def __init__(self, database: BinaryIO, base_pages: int, target_pages: int) -> None:
        """`base_pages` and `target_pages` are the sizes that the manifest promises.

        This takes a byte of memory for each page of the target: check first that it fits the disk.
        """
        self._database = database
        self._base_pages = base_pages
        self._target_pages = target_pages
        self._written = bytearray(target_pages)

    def apply(self, stored: Iterable[bytes]) -> None:
        """Write the pages of one blob, given in pieces.

        Raises:
            MalformedError: when the blob does not follow the format, names a page twice or out of range, or
                was made for other old pages than the file's.
            OSError: when the file cannot be read or written.
        """
        blob = _BlobReader(stored)
        if blob.take(len(BLOB_MAGIC)) != BLOB_MAGIC:
            raise MalformedError("a blob is not a page delta of version 1")
        self._apply_batch(blob)  # at least one
        while not blob.is_at_tail():
            self._apply_batch(blob)
        blob.verify_tail()

    def finish(self) -> None:
        """Cut the file to its size, after the last blob.

        Raises:
            MalformedError: when the delta lacks a page that the base lacks too.
            OSError: when the file cannot be written.
        """
        missing = self._written.find(0, self._base_pages)
        if missing >= 0:
            raise MalformedError(f"the delta lacks page {missing}, and so does its base")
        self._database.truncate(self._target_pages * PAGE_BYTES)

    def _apply_batch(self, blob: _BlobReader) -> None:
        list_bytes = int.from_bytes(blob.take(LIST_SIZE_BYTES), "little")
        if list_bytes > MAX_LIST_FRAME_BYTES:
            raise MalformedError(f"a list of pages of {list_bytes} bytes")
        page_list = _BlobReader([blob.take(list_bytes)])
        pages = parse_page_list(page_list.take_frame(MAX_LIST_BYTES), self._target_pages)
        page_list.verify_end()
        for first, count in page_runs(pages):
            if self._written.find(1, first, first + count) >= 0:
                raise MalformedError("a delta holds a page twice")
            self._written[first : first + count] = b"\1" * count
        old = read_pages(self._database, [page for page in pages if page < self._base_pages])
        size_bytes = len(pages) * PAGE_BYTES
        new = memoryview(blob.take_frame(size_bytes, old))
        if len(new) != size_bytes:
            raise MalformedError(f"a batch of {len(new)} bytes for {len(pages)} pages")
        start = 0
        for first, count in page_runs(pages):
            self._database.seek(first * PAGE_BYTES)
            self._database.write(new[start : start + count * PAGE_BYTES])
            start += count * PAGE_BYTES


class _BlobReader:
    """The bytes of a blob, from pieces of any size; it never holds more than it was asked for and a piece."""

    def __init__(self, stored: Iterable[bytes]) -> None:
        self._pieces = _cut(stored)
        self._ahead = b""
        self._at = 0  # what is before it in `_ahead` was taken

    def take(self, size_bytes: int) -> bytes:
        """Exactly so many bytes. Raises: MalformedError."""
        taken = self._look(size_bytes)
        if len(taken) < size_bytes:
            raise MalformedError("a blob ends too early")
        self._at += size_bytes
        return taken

    def take_frame(self, max_bytes: int, prefix: bytes = b"") -> bytes:
        """The content of one zstd frame of at most `max_bytes`, which says its size and has a checksum.

        Raises:
            MalformedError: when there is no such frame, it is damaged, or made for another prefix.
        """
        header = self._look(_FRAME_HEADER_BYTES)
        content: list[bytes] = []
        try:
            declared = zstd.get_frame_info(header).decompressed_size
            descriptor = header[_DESCRIPTOR_AT]
            if not (descriptor & _CHECKSUM and descriptor & _CONTENT_SIZE):
                raise MalformedError("a frame lacks its content size or its checksum")
            if declared > max_bytes:
                raise MalformedError(f"a frame of {declared} bytes; {max_bytes} are allowed")
            decompressor = zstd.ZstdDecompressor(
                options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG_MAX},
                zstd_dict=_as_prefix(prefix),
            )
            while not decompressor.eof:
                piece = self._next_piece() if decompressor.needs_input else b""
                # zstd itself holds a frame to the size that it declares.
                content.append(decompressor.decompress(piece, _OUTPUT_BYTES))
        except zstd.ZstdError as error:
            raise MalformedError(f"a frame is damaged, or made for another base: {error}") from error
        self._ahead, self._at = decompressor.unused_data, 0
        return b"".join(content)

    def is_at_tail(self) -> bool:
        """Whether nothing is left but, perhaps, skippable frames."""
        return self._look(len(_SKIPPABLE_MAGIC)) in (b"", _SKIPPABLE_MAGIC)

    def verify_tail(self) -> None:
        """Check that only empty skippable frames are left. Raises: MalformedError."""
        while self._look(1):
            if self.take(len(EMPTY_SKIPPABLE_FRAME)) != EMPTY_SKIPPABLE_FRAME:
                raise MalformedError("a blob goes on after its last batch")

    def verify_end(self) -> None:
        """Check that nothing is left. Raises: MalformedError."""
        if self._look(1):
            raise MalformedError("a list of pages is longer than its frame")

    def _look(self, size_bytes: int) -> bytes:
        """The next so many bytes, which stay; fewer at the end."""
        while len(self._ahead) - self._at < size_bytes and (piece := next(self._pieces, b"")):
            self._ahead, self._at = self._ahead[self._at :] + piece, 0
        return self._ahead[self._at : self._at + size_bytes]

    def _next_piece(self) -> bytes:
        piece = self._ahead[self._at :] or next(self._pieces, b"")
        self._ahead, self._at = b"", 0
        if not piece:
            raise MalformedError("a blob ends within a frame")
        return piece


def _as_prefix(old: bytes) -> tuple[zstd.ZstdDict, int] | None:
    return zstd.ZstdDict(old, is_raw=True).as_prefix if len(old) >= MIN_PREFIX_BYTES else None


def _cut(stored: Iterable[bytes]) -> Iterator[bytes]:
    for piece in stored:  # an empty piece yields nothing, and so never looks like the end
        for start in range(0, len(piece), _PIECE_BYTES):
            yield piece[start : start + _PIECE_BYTES]
