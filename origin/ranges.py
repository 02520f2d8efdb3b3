"""The Range header (RFC 9110, section 14): from its text and a size to the bytes that are asked for.

Invariant: a `ByteRange` lies within the representation. What is not understood is ignored, never an error;
only a header that is well formed and asks for nothing that exists is unsatisfiable.
Whether a Range header counts at all is decided in `origin.conditions`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# RFC 9110, section 17.15: many small ranges are an attack. Players ask for one, PDF readers for a dozen.
MAX_RANGES = 16
# Section 15.3.7.2: a gap that is smaller than what another part costs may be sent; "around 80 bytes".
_PART_COSTS_BYTES = 80

_HEADER = re.compile(r"bytes=(.*)", re.IGNORECASE)  # Unit names are case-insensitive: section 14.1.
_SPEC = re.compile(r"(?P<first>[0-9]+)-(?P<last>[0-9]*)|-(?P<suffix>[0-9]+)")
# Beyond any file (2^63 - 1 has 19 digits), and far below what int() refuses to parse.
_LONGEST_NUMBER = 19


class ByteRange(NamedTuple):
    """Bytes `first` to `last` of a representation, both inclusive, counted from 0."""

    first: int
    last: int

    @property
    def length_bytes(self) -> int:
        return self.last - self.first + 1


def parse_ranges(header: str, size_bytes: int) -> list[ByteRange] | None:
    """The satisfiable ranges of a Range header in the order of the header, each cut to the representation.

    An empty list: the header is valid and nothing of it is satisfiable (status 416). None: the header is to
    be ignored, because its unit is unknown, it is malformed, it has more than `MAX_RANGES` ranges (sections
    14.2, 17.15), or it asks for the end of an empty representation, which no Content-Range can express.
    """
    match = _HEADER.fullmatch(header)
    if match is None:
        return None
    # A list may hold empty elements, and white space around its commas: section 5.6.1.
    specs = [spec for spec in (item.strip(" \t") for item in match[1].split(",")) if spec]
    if not specs or len(specs) > MAX_RANGES:
        return None
    ranges = []
    for spec in specs:
        parsed = _SPEC.fullmatch(spec)
        if parsed is None:
            return None
        if parsed["suffix"] is not None:
            length = _number(parsed["suffix"])
            if length and not size_bytes:
                return None
            first, last = max(size_bytes - length, 0), size_bytes - 1
        else:
            first = _number(parsed["first"])
            last = _number(parsed["last"]) if parsed["last"] else max(first, size_bytes - 1)
            if last < first:
                return None  # "An int-range is invalid if the last-pos value is less": section 14.1.1.
        if first < size_bytes and first <= last:
            ranges.append(ByteRange(first, min(last, size_bytes - 1)))
    return ranges


def coalesce(ranges: list[ByteRange]) -> list[ByteRange]:
    """The same bytes in ranges that neither overlap nor lie so close together that parts would cost more.

    Each stands where the first of the ranges in it stood (RFC 9110, section 15.3.7.2: the order of the
    header), and no byte is in two of them, so that no answer is much larger than the file. One sort and one
    pass: merging each range with all others was CVE-2025-62727.
    """
    if len(ranges) < 2:
        return ranges
    merged: list[tuple[int, ByteRange]] = []
    for position, found in sorted(enumerate(ranges), key=lambda item: item[1]):
        if merged and found.first <= merged[-1][1].last + 1 + _PART_COSTS_BYTES:
            earlier, (first, last) = merged[-1]
            merged[-1] = min(earlier, position), ByteRange(first, max(last, found.last))
        else:
            merged.append((position, found))
    return [found for _, found in sorted(merged)]


def _number(digits: str) -> int:
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) <= _LONGEST_NUMBER else 10**_LONGEST_NUMBER
