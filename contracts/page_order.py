"""In which order the changed pages of a database compress best: siblings of a b-tree beside each other.

When SQLite splits a page or evens out neighbours, rows move to a page that may be anywhere in the file. What
a page holds now is then old, but stood in its sibling. Cut into batches by page number, a delta sends those
rows again: at a million songs an hour or a day takes a third more bytes (benchmarks/page_delta.py).

Invariant: the result is a permutation of the pages that went in, whatever they hold. A page that looks like
part of a b-tree and is not costs bytes, never correctness.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from contracts.read_model import PAGE_BYTES

# "B-tree Pages" of https://www.sqlite.org/fileformat2.html: the first byte of an interior page, of an index
# and of a table; its header, whose last four bytes are the right-most child; the cells' offsets follow.
_INTERIOR = frozenset((2, 5))
_HEADER_BYTES = 12
_FIRST_PAGE_HEADER = 100  # the database header comes before that of the first page


def order_pages(pages: Sequence[int], read_page: Callable[[int], bytes]) -> list[int]:
    """These page indexes of a target, the children of each interior page together and in key order.

    They stand where their parent's number would. Rows that move between two pages change the parent of both,
    so the changed pages alone tell who is whose sibling. `read_page` gives the 4,096 bytes of a page.
    """
    places: dict[int, tuple[int, int]] = {}
    for page in pages:
        for number, child in enumerate(_children(page, read_page(page))):
            places[child] = (page, number)
    return sorted(pages, key=lambda page: places.get(page, (page, -1)))


def _children(page: int, content: bytes) -> list[int]:
    """The indexes of an interior page's children, in key order; none of any other page."""
    start = 0 if page else _FIRST_PAGE_HEADER
    if content[start] not in _INTERIOR:
        return []
    (cells,) = struct.unpack_from(">H", content, start + 3)
    if start + _HEADER_BYTES + 2 * cells > PAGE_BYTES:
        return []
    offsets = struct.unpack_from(f">{cells}H", content, start + _HEADER_BYTES)
    # A cell begins with its left child. SQLite counts pages from 1, a delta from 0.
    return [
        struct.unpack_from(">I", content, offset)[0] - 1
        for offset in (*offsets, start + _HEADER_BYTES - 4)
        if offset <= PAGE_BYTES - 4
    ]
