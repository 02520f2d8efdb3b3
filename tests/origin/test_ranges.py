"""The Range header, section by section of RFC 9110."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin.ranges import MAX_RANGES, ByteRange, coalesce, parse_ranges


@pytest.mark.parametrize(
    ("section", "header", "size_bytes", "expected"),
    [
        # 14.1.2: the examples of the RFC, for 10,000 bytes.
        ("14.1.2", "bytes=0-499", 10_000, [(0, 499)]),
        ("14.1.2", "bytes=500-999", 10_000, [(500, 999)]),
        ("14.1.2", "bytes=-500", 10_000, [(9500, 9999)]),
        ("14.1.2", "bytes=9500-", 10_000, [(9500, 9999)]),
        ("14.1.2", "bytes=0-0,-1", 10_000, [(0, 0), (9999, 9999)]),
        ("14.1.2", "bytes= 0-999, 4500-5499, -1000", 10_000, [(0, 999), (4500, 5499), (9000, 9999)]),
        ("14.1.2", "bytes=500-700,601-999", 10_000, [(500, 700), (601, 999)]),
        # "If the selected representation is shorter than the specified suffix-length, the entire
        # representation is used."
        ("14.1.2", "bytes=-20000", 10_000, [(0, 9999)]),
        # "If the last-pos value is absent, or … greater than or equal to the current length …"
        ("14.1.2", "bytes=9000-20000", 10_000, [(9000, 9999)]),
        # "satisfiable if it contains … an int-range whose first-pos is less than the current length … or
        # … a suffix-range with a non-zero suffix-length"
        ("14.1.2", "bytes=-0", 10_000, []),
        ("14.1.2", "bytes=10000-", 10_000, []),
        ("14.1.2", "bytes=10000-10001", 10_000, []),
        ("14.1.2", "bytes=0-", 0, []),
        ("14.1.2", "bytes=10000-,0-1", 10_000, [(0, 1)]),
        # No Content-Range can express the end of nothing, so the header is ignored.
        ("14.4", "bytes=-5", 0, None),
        # "An int-range is invalid if the last-pos value is present and less than first-pos."
        ("14.1.1", "bytes=5-4", 10_000, None),
        ("14.1.1", "bytes=0-1,5-4", 10_000, None),
        # Unit names are case-insensitive.
        ("14.1", "BYTES=0-1", 10_000, [(0, 1)]),
        # "An origin server MUST ignore a Range header field that contains a range unit it does not
        # understand."
        ("14.2", "items=0-1", 10_000, None),
        ("14.2", "bytes", 10_000, None),
        ("14.2", "", 10_000, None),
        # "A recipient of … invalid ranges-specifier" may ignore it; Starlette 0.47 accepted the last.
        ("14.2", "bytes=", 10_000, None),
        ("14.2", "bytes=-", 10_000, None),
        ("14.2", "bytes=a-b", 10_000, None),
        ("14.2", "bytes=--1", 10_000, None),
        ("14.2", "bytes=0-1-2", 10_000, None),
        ("14.2", "bytes=1 - 2", 10_000, None),
        ("14.2", "bytes=0x1-2", 10_000, None),
        ("14.2", "bytes=+1-2", 10_000, None),
        ("14.2", "bytes=１-2", 10_000, None),
        ("14.2", "bytes=x5-9", 10_000, None),
        ("14.2", "bytes =0-1", 10_000, None),
        ("14.2", "bytes=0-1;", 10_000, None),
        # 5.6.1.2: "A recipient MUST parse and ignore a reasonable number of empty list elements."
        ("5.6.1", "bytes=,0-1 ,\t,", 10_000, [(0, 1)]),
        # Python refuses to parse numbers of more than 4,300 digits; HTTP has no bound.
        ("14.1.1", "bytes=0-" + "9" * 5000, 10_000, [(0, 9999)]),
        ("14.1.1", "bytes=-" + "9" * 5000, 10_000, [(0, 9999)]),
        ("14.1.1", "bytes=" + "9" * 5000 + "-", 10_000, []),
        ("14.1.1", "bytes=" + "0" * 5000 + "-1", 10_000, [(0, 1)]),
        # 17.15: many ranges are an attack.
        ("17.15", "bytes=" + ",".join(["0-0"] * MAX_RANGES), 10_000, [(0, 0)] * MAX_RANGES),
        ("17.15", "bytes=" + ",".join(["0-0"] * (MAX_RANGES + 1)), 10_000, None),
    ],
)
def test_range_header(
    section: str, header: str, size_bytes: int, expected: list[tuple[int, int]] | None
) -> None:
    """`section` names the part of RFC 9110 that demands it."""
    assert expected == parse_ranges(header, size_bytes), section


@given(st.text(alphabet="bytes=-,0123456789 \t", max_size=40), st.integers(0, 50))
def test_ranges_never_leave_the_representation(header: str, size_bytes: int) -> None:
    for found in parse_ranges(header, size_bytes) or []:
        assert 0 <= found.first <= found.last < size_bytes
        assert found.length_bytes == len(range(size_bytes)[found.first : found.last + 1])


@given(st.text(max_size=100), st.integers(0, 1 << 62))
def test_no_text_raises(header: str, size_bytes: int) -> None:
    parse_ranges("bytes=" + header, size_bytes)


def test_length() -> None:
    assert ByteRange(3, 3).length_bytes == 1


@pytest.mark.parametrize(
    ("section", "ranges", "expected"),
    [
        ("14.1.2", [(500, 600), (601, 999)], [(500, 999)]),
        ("14.1.2", [(500, 700), (601, 999)], [(500, 999)]),
        ("15.3.7.2", [(0, 9)], [(0, 9)]),
        # "… that overlap", also when one lies in the other, and "regardless of the order".
        ("15.3.7.2", [(0, 999), (5, 9)], [(0, 999)]),
        ("15.3.7.2", [(5, 9), (0, 999)], [(0, 999)]),
        ("15.3.7.2", [(601, 999), (500, 600)], [(500, 999)]),
        # "… or that are separated by a gap that is smaller than the overhead of sending multiple parts",
        # "around 80 bytes".
        ("15.3.7.2", [(0, 9), (90, 99)], [(0, 99)]),
        ("15.3.7.2", [(0, 9), (91, 99)], [(0, 9), (91, 99)]),
        # "… in the same order that the corresponding range-spec appeared in the received Range header field,
        # excluding those ranges that were … coalesced into other ranges."
        ("15.3.7.2", [(5000, 5009), (0, 9)], [(5000, 5009), (0, 9)]),
        ("15.3.7.2", [(9000, 9009), (0, 9), (9010, 9019), (5, 19)], [(9000, 9019), (0, 19)]),
        ("17.15", [(0, 9999)] * MAX_RANGES, [(0, 9999)]),
    ],
)
def test_coalesced(section: str, ranges: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    """The sentences in quotes are those of the section."""
    assert expected == coalesce([ByteRange(*bounds) for bounds in ranges]), section


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 300)), max_size=16))
def test_coalesced_ranges_hold_each_byte_once(asked: list[tuple[int, int]]) -> None:
    """All that was asked for, no gap that was worth leaving out, and no byte twice."""
    ranges = [ByteRange(first, first + length) for first, length in asked]
    found = coalesce(ranges)
    bytes_of = [byte for first, last in found for byte in range(first, last + 1)]
    wanted = {byte for first, last in ranges for byte in range(first, last + 1)}
    assert wanted <= set(bytes_of)
    assert len(bytes_of) == len(set(bytes_of))
    in_file = sorted(found)
    assert all(later.first - earlier.last > 81 for earlier, later in pairwise(in_file))
    # Nothing was added but gaps: each end is an end of a range that was asked for.
    assert {first for first, _ in found} <= {first for first, _ in ranges}
    assert {last for _, last in found} <= {last for _, last in ranges}


def test_merging_looks_at_each_range_a_few_times() -> None:
    """CVE-2025-62727 was a merge that compared each range with all others."""
    compared = 0

    class Counted(int):
        def __le__(self, other: int) -> bool:
            nonlocal compared
            compared += 1
            return int(self) <= int(other)

    ranges = [ByteRange(Counted(1000 * number), 1000 * number) for number in range(5000)]
    assert ranges == coalesce(ranges)
    assert compared < 3 * len(ranges)
