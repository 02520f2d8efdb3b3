"""The order of pages: split pages after their origin, and a permutation whatever the pages hold."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from contracts.page_order import order_pages
from contracts.read_model import PAGE_BYTES

LEAF = b"\x0d" + bytes(PAGE_BYTES - 1)


def interior(*children: int, start: int = 0, kind: int = 5) -> bytes:
    """An interior page by hand (sqlite.org/fileformat2.html, "B-tree Pages"); children counted from 0."""
    *cells, rightmost = children
    offsets = [PAGE_BYTES - 5 * (place + 1) for place in range(len(cells))]
    page = bytearray(PAGE_BYTES)
    struct.pack_into(">BHHHBI", page, start, kind, 0, len(cells), 0, 0, rightmost + 1)
    struct.pack_into(f">{len(cells)}H", page, start + 12, *offsets)
    for offset, child in zip(offsets, cells, strict=True):
        struct.pack_into(">IB", page, offset, child + 1, 1)
    return bytes(page)


def order(pages: dict[int, bytes], base_pages: int) -> list[int]:
    return order_pages(sorted(pages), base_pages, pages.__getitem__)


def test_new_page_comes_after_its_left_sibling() -> None:
    """Also the right-most one, and one whose left sibling is new too."""
    for kind in (2, 5):
        pages = {1: interior(3, 11, 4, 10, 12, kind=kind), 3: LEAF, 4: LEAF, 7: LEAF, 10: LEAF, 11: LEAF}
        assert order({**pages, 12: LEAF}, 10) == [1, 3, 11, 4, 10, 12, 7]


def test_first_page_is_read_behind_the_database_header() -> None:
    pages = {0: interior(2, 10, 3, start=100), 2: LEAF, 3: LEAF, 10: LEAF}
    assert order(pages, 10) == [0, 2, 10, 3]


def test_new_page_without_a_known_sibling_stays_at_the_end() -> None:
    assert order({1: interior(10, 3), 3: LEAF, 10: LEAF, 11: LEAF}, 10) == [1, 3, 10, 11]


@given(st.dictionaries(st.integers(0, 40), st.binary(max_size=300), max_size=9), st.integers(0, 40))
def test_any_pages_come_out_as_a_permutation(starts: dict[int, bytes], base_pages: int) -> None:
    """Pages of garbage, many of which begin like an interior page."""
    pages = {index: (b"\x05" + start).ljust(PAGE_BYTES, b"\xff") for index, start in starts.items()}
    pages |= {index + 41: (b"\x02" + start).ljust(PAGE_BYTES, b"\0") for index, start in starts.items()}
    assert sorted(pages) == sorted(order(pages, base_pages))
