"""Handles: the opaque locators `loc:<id>.<check>` by which the public database names files on the NAS.

Invariant: a handle shows no path, and one made for a deleted location never names the next row that SQLite
gives the same id, because the check covers what the location belonged to.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import NamedTuple

from contracts.errors import MalformedError

_MAX_ROWID = (1 << 63) - 1  # of SQLite: 19 digits
# 32 bits of check: see docs/format.md, "Handles".
_HANDLE = re.compile(r"loc:(0|[1-9][0-9]{0,18})\.([0-9a-f]{8})")


class Handle(NamedTuple):
    """A parsed handle: `file_locations.id`, and the check of what it belongs to."""

    location_id: int
    check: str


def format_handle(location_id: int, song_id: int, file_asset_id: int, file_size_bytes: int | None) -> str:
    """The handle of a location; an unknown size counts as the empty string."""
    size = "" if file_size_bytes is None else file_size_bytes
    check = sha256(f"{song_id}:{file_asset_id}:{size}".encode()).hexdigest()[:8]
    return f"loc:{location_id}.{check}"


def parse_handle(locator: str) -> Handle:
    """What a handle names.

    Raises:
        MalformedError: when `locator` is no handle.
    """
    match = _HANDLE.fullmatch(locator)
    if match is None or int(match[1]) > _MAX_ROWID:
        raise MalformedError("the locator is not a handle")
    return Handle(int(match[1]), match[2])
