"""Erases what SQLite leaves of old rows between the live ones.

Invariant: no live byte changes; `PRAGMA integrity_check` and every query answer as before.
With `secure_delete` SQLite overwrites what is deleted, but not the copies that stay behind when rows move to
another page: they lie in the unallocated part of the page that they left, between the pointers to its cells
and the cells ("B-tree Pages" of https://www.sqlite.org/fileformat2.html), and outlive their rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from contracts.errors import SourceError
from contracts.page_delta import page_runs
from contracts.read_model import PAGE_BYTES

_READ_PAGES = 256
_FIRST_PAGE_HEADER = 100  # the database header comes before that of the first page
# The first byte of a b-tree page, and how long its header is: an interior page has a right-most child.
_HEADER_BYTES = {2: 12, 5: 12, 10: 8, 13: 8}
# Every other kind of page is empty or begins with a page number, whose first byte is 0 up to here: 64 GiB.
_MAX_PAGES = 1 << 24


def erase_remains(database: Path, pages: Iterable[int] | None = None) -> None:
    """Zero the unallocated part of these pages (increasing indexes), or of all, of a file not in use.

    Raises:
        SourceError: when the database has more than 2^24 pages.
        OSError: when it cannot be read or written.
    """
    page_count = database.stat().st_size // PAGE_BYTES
    if page_count > _MAX_PAGES:
        raise SourceError(f"a database of {page_count} pages is larger than 64 GiB, which is not supported")
    with database.open("r+b") as stream:
        runs = [(0, page_count)] if pages is None else page_runs([*pages])
        for first, count in runs:
            for start in range(first, first + count, _READ_PAGES):
                _erase(stream, start, min(_READ_PAGES, first + count - start))


def _erase(stream: BinaryIO, first: int, count: int) -> None:
    stream.seek(first * PAGE_BYTES)
    content = bytearray(stream.read(count * PAGE_BYTES))
    is_changed = False
    for page in range(count):
        header = page * PAGE_BYTES + (0 if first + page else _FIRST_PAGE_HEADER)
        header_bytes = _HEADER_BYTES.get(content[header])
        if header_bytes is None:
            continue
        cells = int.from_bytes(content[header + 3 : header + 5], "big")
        gap = header + header_bytes + 2 * cells
        end = page * PAGE_BYTES + int.from_bytes(content[header + 5 : header + 7], "big")
        if content.count(0, gap, end) < end - gap:
            content[gap:end] = bytes(end - gap)
            is_changed = True
    if is_changed:
        stream.seek(first * PAGE_BYTES)
        stream.write(content)
