"""The byte format of a page delta: what stands in a blob, apart from how it is found and applied.

Invariant: the pages of a batch are written as gaps, so that no list of pages can repeat one or run backwards,
and every list has one spelling only. The encoder and the decoder share what is here and nothing else.
`docs/format.md`, "Page delta", is normative.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from contracts.errors import MalformedError
from contracts.read_model import PAGE_BYTES

BLOB_MAGIC = b"MCDELTA1"
LIST_SIZE_BYTES = 4  # the stored size of a list frame, an unsigned integer, little end first
# Beyond 256 pages a batch saves 1 % at most (benchmarks/page_delta.py); the rest is room for another writer.
# It is what bounds the decoder's memory: 16 MiB of old pages and 16 MiB of new ones.
MAX_BATCH_PAGES = 4096
# Prefix and content of the largest batch together.
WINDOW_LOG_MAX = (2 * MAX_BATCH_PAGES * PAGE_BYTES - 1).bit_length()
# contracts.manifest.Size ends at 2^44 bytes: 2^32 pages, whose numbers fill five bytes of seven bits.
_VARINT_BYTES = 5
MAX_LIST_BYTES = (1 + MAX_BATCH_PAGES) * _VARINT_BYTES
MAX_LIST_FRAME_BYTES = 32 << 10  # more than any zstd frame of that needs, compressed or not
# ZstdDict refuses fewer; no page is shorter, so this only ever means "no old pages at all".
MIN_PREFIX_BYTES = 8


def format_page_list(pages: Sequence[int]) -> bytes:
    """The content of a list frame for these page indexes, strictly increasing, at least one."""
    content = bytearray(_format_varint(len(pages)))
    previous = -1
    for page in pages:
        content += _format_varint(page - previous - 1)
        previous = page
    return bytes(content)


def parse_page_list(content: bytes, target_pages: int) -> list[int]:
    """The page indexes in the content of a list frame: strictly increasing and below `target_pages`.

    Raises:
        MalformedError: when there is none or more than `MAX_BATCH_PAGES`, one is out of range, a number is
            not in its shortest form, or anything is missing or left over.
    """
    numbers = _parse_varints(content)
    count = next(numbers, 0)
    if not 1 <= count <= MAX_BATCH_PAGES:
        raise MalformedError(f"a batch of {count} pages; 1 to {MAX_BATCH_PAGES} are allowed")
    pages: list[int] = []
    page = -1
    for gap in numbers:
        page += gap + 1
        if page >= target_pages:
            raise MalformedError(f"a batch holds page {page} of a database of {target_pages}")
        pages.append(page)
        if len(pages) > count:
            break
    if len(pages) != count:
        raise MalformedError(f"a batch does not list the {count} pages it counts")
    return pages


def read_pages(database: BinaryIO, pages: Sequence[int]) -> bytes:
    """The contents of these pages, in order, from a seekable file.

    Raises:
        MalformedError: when the file ends before one of them does.
    """
    contents = []
    for first, count in page_runs(pages):
        database.seek(first * PAGE_BYTES)
        contents.append(database.read(count * PAGE_BYTES))
        if len(contents[-1]) != count * PAGE_BYTES:
            raise MalformedError(f"the database ends before page {first + count - 1}")
    return b"".join(contents)


def page_runs(pages: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Increasing page indexes as runs of neighbours: the first of each and their number."""
    start = 0
    for end in range(1, len(pages) + 1):
        if end == len(pages) or pages[end] != pages[end - 1] + 1:
            yield pages[start], end - start
            start = end


def _format_varint(number: int) -> bytes:
    """LEB128: seven bits a byte, the lowest first; the high bit says that more follow."""
    stored = bytearray()
    while number > 0x7F:
        stored.append(number & 0x7F | 0x80)
        number >>= 7
    stored.append(number)
    return bytes(stored)


def _parse_varints(content: bytes) -> Iterator[int]:
    number = length = 0
    for byte in content:
        number |= (byte & 0x7F) << 7 * length
        length += 1
        if byte > 0x7F:
            if length == _VARINT_BYTES:
                raise MalformedError("a number in a list of pages does not end")
            continue
        if byte == 0 and length > 1:
            raise MalformedError("a number in a list of pages is not in its shortest form")
        yield number
        number = length = 0
    if length:
        raise MalformedError("a list of pages ends within a number")
