"""The order of pages: siblings together, and a permutation whatever the pages hold."""

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


def order(pages: dict[int, bytes]) -> list[int]:
    return order_pages(sorted(pages), pages.__getitem__)


def test_siblings_stand_together_in_key_order_where_their_parent_would() -> None:
    """Also the right-most one; what has no parent among the pages stays at its number."""
    for kind in (2, 5):
        pages = {5: interior(9, 2, 11, 3, kind=kind), 2: LEAF, 3: LEAF, 4: LEAF, 7: LEAF, 9: LEAF, 11: LEAF}
        assert order(pages) == [4, 5, 9, 2, 11, 3, 7]


def test_children_that_did_not_change_are_left_out() -> None:
    assert order({1: interior(30, 4, 20), 3: LEAF, 20: LEAF, 30: LEAF}) == [1, 30, 20, 3]


def test_first_page_is_read_behind_the_database_header() -> None:
    pages = {0: interior(10, 2, 3, start=100), 2: LEAF, 3: LEAF, 10: LEAF}
    assert order(pages) == [0, 10, 2, 3]


def test_an_interior_page_stands_with_its_own_siblings() -> None:
    pages = {1: interior(8, 6), 6: interior(2, 9), 8: LEAF, 2: LEAF, 9: LEAF}
    assert order(pages) == [1, 8, 6, 2, 9]


@given(st.dictionaries(st.integers(0, 40), st.binary(max_size=300), max_size=9))
def test_any_pages_come_out_as_a_permutation(starts: dict[int, bytes]) -> None:
    """Pages of garbage, many of which begin like an interior page."""
    pages = {index: (b"\x05" + start).ljust(PAGE_BYTES, b"\xff") for index, start in starts.items()}
    pages |= {index + 41: (b"\x02" + start).ljust(PAGE_BYTES, b"\0") for index, start in starts.items()}
    assert sorted(pages) == sorted(order(pages))
