"""Several ranges in one response: the body of type multipart/byteranges (RFC 9110, section 14.6).

Invariant: the length is that of what is sent, and known before a byte of the file is read. Which ranges
these are is decided in `origin.conditions`; nothing is read or sent here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from origin.ranges import ByteRange


class Part(NamedTuple):
    """One range, and the delimiter and header fields that are sent before its bytes."""

    head: bytes
    byte_range: ByteRange


class Multipart(NamedTuple):
    """A body: its media type, its parts, what closes it, and the length of all of it."""

    content_type: bytes
    parts: list[Part]
    tail: bytes
    length_bytes: int


def multipart(
    ranges: Sequence[ByteRange], size_bytes: int, content_type: bytes, boundary: bytes
) -> Multipart:
    """The body for some ranges of a representation of that size and type.

    `boundary` is at most 70 letters and digits (RFC 2046, section 5.1.1) that occur nowhere in the bytes:
    random ones that were made for this response. It is not quoted, which some clients do not understand
    (section 14.6). What ends a line before a delimiter belongs to the delimiter, so the first has none.
    """
    parts = [
        Part(
            b"%b--%b\r\nContent-Type: %b\r\nContent-Range: bytes %d-%d/%d\r\n\r\n"
            % (b"\r\n" if number else b"", boundary, content_type, *found, size_bytes),
            found,
        )
        for number, found in enumerate(ranges)
    ]
    tail = b"\r\n--%b--\r\n" % boundary
    length_bytes = sum(len(part.head) + part.byte_range.length_bytes for part in parts) + len(tail)
    return Multipart(b"multipart/byteranges; boundary=%b" % boundary, parts, tail, length_bytes)
