"""The protocol of an object store: the least that publisher and mirror need of one.

Invariant: a write says whether it creates, overwrites or updates; there is no default. A store raises the
errors of `contracts.errors` and nothing else, also in the middle of a stream, and never answers that an
object is missing when it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import BinaryIO, NamedTuple, Protocol

from contracts.errors import MalformedError, PreconditionFailed, StoreUnavailable

# RFC 9110, section 8.8.3, and what some servers send without its quotes. "*" or a list would mean something
# else in If-None-Match, and servers refuse headers of some KiB: either would blind a mirror for good.
_ETAG = re.compile(r'(?:W/)?"[!\x23-\x7e\x80-\xff]{0,250}"|[0-9A-Za-z._:+/=-]{1,250}')
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")  # RFC 9110, section 14.4
PIECE_BYTES = 64 << 10  # what a reading yields at a time: bounds memory per stream


class ObjectInfo(NamedTuple):
    """What a store says of an object: its size, and its entity tag ("" when it has none)."""

    size_bytes: int
    etag: str


class ListedObject(NamedTuple):
    """What a listing says of an object: its key, its size, and when it was written by the store's clock."""

    key: str
    size_bytes: int
    modified: datetime


class Reading:
    """An object being read: iterate over its pieces once, or close it early."""

    def __init__(
        self, info: ObjectInfo, pieces: Iterator[bytes], release: Callable[[], None] = lambda: None
    ) -> None:
        self.info = info
        self._pieces = pieces
        self._release = release  # closing a generator that was never started runs none of its lines

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        """Let go of the connection or the file; harmless when called twice."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()
        self._release()


@dataclass(frozen=True, slots=True)
class Create:
    """Write only when no object has that key yet."""


@dataclass(frozen=True, slots=True)
class Overwrite:
    """Write whatever is there."""


@dataclass(frozen=True, slots=True)
class Update:
    """Write only when the object still has the entity tag that was read."""

    etag: str


PutMode = Create | Overwrite | Update


def verify_mode(key: str, mode: PutMode, found_etag: str | None) -> None:
    """Check a write's condition against the entity tag that its key has now, None when there is no object.

    Raises:
        PreconditionFailed: when it does not hold.
    """
    if isinstance(mode, Create) and found_etag is not None:
        raise PreconditionFailed(f"{key} exists already")
    if isinstance(mode, Update) and (found_etag is None or found_etag != mode.etag):
        raise PreconditionFailed(f"{key} is no longer the one that was read")


class ReadableStore(Protocol):
    """A store as a mirror sees it."""

    def head(self, key: str) -> ObjectInfo:
        """What is stored under a key.

        Raises: ObjectMissing, AccessDenied, StoreUnavailable.
        """

    def get(self, key: str, start: int = 0) -> Reading:
        """Read an object from byte `start` on; `info.size_bytes` is always the size of the whole.

        Raises: ObjectMissing, AccessDenied, StoreUnavailable; the last also while it is read.
        """

    def get_if_changed(self, key: str, etag: str) -> Reading | None:
        """Read an object, or None when its entity tag is still `etag` ("" is no object's).

        Asks caches on the way to revalidate. Raises: as `get`.
        """


class Store(ReadableStore, Protocol):
    """A store as a publisher sees it."""

    address: str

    def put(self, key: str, body: bytes | BinaryIO, mode: PutMode) -> str:
        """Write a whole object, all of it or none; returns its entity tag.

        The layout decides its media type and caching headers. A stream must be seekable.
        Raises: PreconditionFailed, AccessDenied, StoreUnavailable; after the last the object may or may
            not have been written.
        """

    def delete(self, key: str) -> None:
        """Delete an object; no error when there is none. Raises: AccessDenied, StoreUnavailable."""

    def list_objects(self, prefix: str = "") -> list[ListedObject]:
        """Every object whose key begins with `prefix`, in no order; also those that are not of the layout.

        A whole list, so that one that breaks off half-way is asked for again and never mistaken for whole:
        a hundred thousand objects take some 40 MB. Raises: AccessDenied, StoreUnavailable.
        """

    def now(self) -> datetime | None:
        """The store's own clock (UTC), to the second, as of now; None when it has none.

        Raises: AccessDenied, StoreUnavailable.
        """


def read_whole(reading: Reading, max_bytes: int) -> bytes:
    """All of a small object.

    Raises:
        MalformedError: when it is larger than `max_bytes`, whatever size was announced.
        StoreUnavailable: as the reading does.
    """
    with closing(reading):
        if reading.info.size_bytes > max_bytes:
            raise MalformedError(f"an object of {reading.info.size_bytes} bytes; {max_bytes} are allowed")
        content = bytearray()
        for piece in reading:
            content += piece
            if len(content) > max_bytes:
                raise MalformedError(f"an object of more than {max_bytes} bytes")
    return bytes(content)


def parse_etag(text: str) -> str:
    """An entity tag from a header, "" when it is none that may be sent back."""
    return text if _ETAG.fullmatch(text) else ""


def parse_rest(text: str, start: int, what: str) -> int:
    """The size of the whole from the Content-Range of a partial answer that holds all from `start` on.

    Raises:
        StoreUnavailable: when it holds anything else: a shorter one would end without an error.
    """
    match = _CONTENT_RANGE.fullmatch(text)
    if match is None:
        raise StoreUnavailable(f"a partial answer to {what} without a valid Content-Range")
    first, last, size_bytes = (int(number) for number in match.groups())
    if first != start or last != size_bytes - 1:
        raise StoreUnavailable(f"another range of {what} was answered than was asked for")
    return size_bytes


def parse_size(text: str | None, what: str) -> int:
    """A size in bytes from a header; 19 digits are more than any disk has.

    Raises:
        StoreUnavailable: when it is no such number: an answer that says so cannot be read.
    """
    if text is None or not (text.isascii() and text.isdecimal() and len(text) <= 19):
        raise StoreUnavailable(f"{what} came without a valid size")
    return int(text)


def parse_retry_after(text: str | None, date: str | None = None) -> float | None:
    """Seconds from a Retry-After header (RFC 9110, section 10.2.3), None when it says nothing that counts.

    One that names a moment counts from `date`, the Date of the same answer: both are by the server's clock.
    """
    if not text:
        return None
    if text.isascii() and text.isdecimal():
        return float(text) if len(text) <= 9 else None
    try:
        until_s = (parsedate_to_datetime(text) - parsedate_to_datetime(date or "")).total_seconds()
    except (ValueError, TypeError, OverflowError):  # no date, or one with and one without a time zone
        return None
    return max(until_s, 0.0)


def stream_pieces(stream: BinaryIO) -> Iterable[bytes]:
    """The rest of a binary stream, in pieces."""
    while piece := stream.read(PIECE_BYTES):
        yield piece
