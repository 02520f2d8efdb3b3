"""The list of what a prune is about to delete: no later manifest names a blob that stands in it.

Invariant: a list that came out of `parse_condemned` holds keys of manifests, signatures and blobs and no
others: neither the pointer nor a succession of keys can be condemned. One list has one text, so that two
prunes that mean the same say the same. `docs/format.md`, "Condemned objects", is normative.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from contracts.errors import MalformedError
from contracts.keyframe import decode_segment, encode_segment
from contracts.layout import Kind, parse_key
from contracts.zstd_api import zstd

MAX_CONDEMNED = 100_000  # the objects of a year of publishes every 15 minutes; the next prune takes the rest
CONDEMNED_MAX_BYTES = 16 << 20  # of the text, in lines of 104 bytes at most, and of the stored bytes
_FIRST_LINE = "condemned 1"
_LINE = re.compile(r"([a-z0-9/.]+)(?: ([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z))?")
_KINDS = {Kind.MANIFEST, Kind.SIGNATURE, Kind.BLOB}


def format_condemned(entries: Mapping[str, datetime | None]) -> bytes:
    """The stored bytes of a list: the keys that its prune deletes, each with None, and those that an earlier
    one has deleted, each with the moment (UTC, to the second) until which that may have gone on."""
    lines = [key if until is None else f"{key} {_format(until)}" for key, until in sorted(entries.items())]
    return encode_segment("".join(f"{line}\n" for line in (_FIRST_LINE, *lines)).encode("ascii"))


def parse_condemned(stored: bytes) -> dict[str, datetime | None]:
    """The keys in a list, each with what `format_condemned` was given for it.

    Raises:
        MalformedError: when the bytes are no such list, or one that is too large.
    """
    try:
        lines = _decompress(stored).decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise MalformedError("a list of condemned objects is not text") from error
    if lines[0] != _FIRST_LINE or lines[-1]:
        raise MalformedError("not a whole list of condemned objects of version 1")
    entries: dict[str, datetime | None] = {}
    last = ""
    for line in lines[1:-1]:
        match = _LINE.fullmatch(line)
        if match is None or parse_key(match[1]).kind not in _KINDS:
            raise MalformedError(f"a list of condemned objects holds {line[:120]!r}")
        if match[1] <= last:
            raise MalformedError("a list of condemned objects is not in order")
        last = match[1]
        try:
            entries[last] = None if match[2] is None else datetime.fromisoformat(match[2])
        except ValueError as error:
            raise MalformedError(f"a list of condemned objects holds {line[:120]!r}") from error
    return entries


def _format(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _decompress(stored: bytes) -> bytes:
    """The text of a list, whose size its frame has to say: nothing larger is ever unpacked."""
    try:
        # A header has 18 bytes at most (RFC 8878, section 3.1.1.1); one that does not say the size gives 0.
        size_bytes = zstd.get_frame_info(stored[:18]).decompressed_size
    except zstd.ZstdError as error:
        raise MalformedError(f"a list of condemned objects is not a zstd frame: {error}") from error
    if not size_bytes or size_bytes > CONDEMNED_MAX_BYTES:
        raise MalformedError(f"a list of condemned objects of {size_bytes} bytes")
    return b"".join(decode_segment([stored], size_bytes))
