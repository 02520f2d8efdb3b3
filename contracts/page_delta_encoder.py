"""Writes a page delta: the changed pages of a database, compressed with their own old contents as a prefix.

Invariant: memory is bounded by the batch and the number of workers, whatever the databases and the change;
the same two databases make the same blobs. How a delta is applied: contracts/page_delta_decoder.py.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from threading import Lock
from typing import BinaryIO

from contracts.errors import MalformedError
from contracts.page_delta import (
    BLOB_MAGIC,
    LIST_SIZE_BYTES,
    MAX_BATCH_PAGES,
    format_page_list,
    read_pages,
)
from contracts.page_order import order_pages
from contracts.read_model import PAGE_BYTES
from contracts.zstd_api import zstd

# benchmarks/page_delta.py: smaller batches lose matches, larger ones cost seconds and memory and save 1 %.
BATCH_PAGES = 256
# Up to this many changed pages (an hour or two of a million songs) every batch is compressed thoroughly: a
# tenth fewer bytes, for some 0.5 ms of one core a page.
THOROUGH_PAGES = 4096
# A blob is begun anew after so many bytes: what a broken upload has to send again at most, and is in memory.
BLOB_BYTES = 4 << 20
# zstd releases the interpreter lock; each worker holds a batch and zstd's tables, some 25 MiB.
_WORKERS = min(2, os.cpu_count() or 1)
_COMPARED_BYTES = 1 << 20  # whole pages; most such pieces are equal, and one memcmp says so

_P = zstd.CompressionParameter
QUICK: dict[int, int] = {_P.compression_level: 12}
# Cheaper than level 16 and smaller, because it takes no match of fewer than 6 bytes. Searching twice as far
# saves 2 % and costs a sixth more.
THOROUGH: dict[int, int] = {
    _P.compression_level: 18,
    _P.strategy: zstd.Strategy.btopt,
    _P.search_log: 2,
    _P.min_match: 6,
    _P.target_length: 999,
}
_CHECKED: dict[int, int] = {_P.content_size_flag: 1, _P.checksum_flag: 1}


def changed_pages(base: BinaryIO, target: BinaryIO) -> list[int]:
    """The indexes of the target's pages that the base does not have, or has with other contents.

    Both are read from their beginning to their end.
    """
    base.seek(0)
    target.seek(0)
    changed = []
    first = 0
    while new := target.read(_COMPARED_BYTES):
        old = base.read(_COMPARED_BYTES)
        if new != old:
            changed += [
                first + start // PAGE_BYTES
                for start in range(0, len(new), PAGE_BYTES)
                if new[start : start + PAGE_BYTES] != old[start : start + PAGE_BYTES]
            ]
        first += len(new) // PAGE_BYTES
    return changed


def encode_delta(
    base: BinaryIO,
    target: BinaryIO,
    changed: Sequence[int],
    *,
    batch_pages: int = BATCH_PAGES,
    thorough_pages: int = THOROUGH_PAGES,
) -> Iterator[bytes]:
    """The blobs, in order, of the delta that turns the open database `base` into `target`.

    `changed` is what `changed_pages` says of the two: increasing indexes, among them all that the base lacks.
    Each worker holds a batch of at most `batch_pages` pages; with more than `thorough_pages` changed, all of
    them are compressed quickly. Neither file may be used by others meanwhile.
    Raises:
        MalformedError: when one of them is not of whole pages, or there is no difference between them.
        ValueError: when `batch_pages` is not 1 to `MAX_BATCH_PAGES`.
        OSError: when a file cannot be read.
    """
    if not 1 <= batch_pages <= MAX_BATCH_PAGES:
        raise ValueError(f"a batch of {batch_pages} pages; 1 to {MAX_BATCH_PAGES} are allowed")
    base_pages, target_pages = _page_count(base), _page_count(target)
    if not changed and base_pages == target_pages:
        raise MalformedError("base and target are equal; there is no delta between equal databases")
    # A target that is nothing but shorter still needs a page to send.
    pages = order_pages(changed or [0], lambda page: read_pages(target, [page]))
    effort = THOROUGH if len(pages) <= thorough_pages else QUICK
    reading = Lock()

    def encode(start: int) -> bytes:
        batch = sorted(pages[start : start + batch_pages])
        with reading:  # a file has one position
            old = read_pages(base, [page for page in batch if page < base_pages])
            new = read_pages(target, batch)
        return encode_batch(batch, old, new, effort)

    executor = ThreadPoolExecutor(_WORKERS, "delta")
    starts = iter(range(0, len(pages), batch_pages))
    # No more than this waits for a slow reader of the blobs.
    encoding = deque(executor.submit(encode, start) for start in islice(starts, _WORKERS + 1))
    try:
        blob = BLOB_MAGIC
        while encoding:
            blob += encoding.popleft().result()
            encoding.extend(executor.submit(encode, start) for start in islice(starts, 1))
            if len(blob) >= BLOB_BYTES:
                yield blob
                blob = BLOB_MAGIC
        if blob != BLOB_MAGIC:
            yield blob
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def encode_batch(pages: Sequence[int], old: bytes, new: bytes, effort: Mapping[int, int]) -> bytes:
    """One batch: `new` holds these pages, `old` what the base has of them, both in order.
    `effort` is a set of zstd's compression parameters: `QUICK` or `THOROUGH`.

    The prefix counts only when window and tables cover it: with smaller ones zstd finds nothing in it and
    says nothing. The tests hold that for every size of batch.
    """
    page_list = zstd.compress(format_page_list(pages), options={**_CHECKED, _P.compression_level: 19})
    log = max(10, (len(old) + len(new) - 1).bit_length())
    page_frame = zstd.compress(
        new,
        options={
            **effort,
            **_CHECKED,
            _P.window_log: log,
            _P.hash_log: log,
            _P.chain_log: log,
        },
        zstd_dict=zstd.ZstdDict(old, is_raw=True).as_prefix if old else None,
    )
    return len(page_list).to_bytes(LIST_SIZE_BYTES, "little") + page_list + page_frame


def _page_count(database: BinaryIO) -> int:
    size_bytes = database.seek(0, os.SEEK_END)
    if size_bytes == 0 or size_bytes % PAGE_BYTES:
        raise MalformedError(f"a database of {size_bytes} bytes is not one of whole pages")
    return size_bytes // PAGE_BYTES
