"""What a place on the NAS is, and how it may be spelt.

Invariant: this is the one definition. The export leaves out every spelling that the proof looks for, so that
an honest catalogue is never refused. Which places a catalogue names is in publisher/backends.py.

A path says something when it has a slash within, or follows a drive: `/music`, `media/music`, `D:music`. A
word (`2024`, `music`) does not tell where anything lies, and would be found in every other title.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import AnyStr
from urllib.parse import quote

Places = Mapping[bytes, str]
"""The spellings of places, and whose place each is."""
Alike = Sequence[tuple[AnyStr, Sequence[AnyStr]]]
"""Spellings in groups, each with what all of its spellings begin with."""

MIN_RAW_BYTES = 4  # a shorter spelling turns up by chance between values
_ALIKE_LENGTH = 4  # spellings that begin alike are looked for together
# Nothing but dots and slashes, perhaps of a drive; or a word.
_SAYS_NOTHING = re.compile(r"(?:[A-Za-z]:)?[./\\]*|(?![A-Za-z]:)[^/\\]*")
_WINDOWS = re.compile(r"[A-Za-z]:|//")  # a drive, or a share, where both slashes mean the same
_ESCAPE = re.compile(r"\\u[0-9a-f]{4}")


def spellings(stored: bytes) -> set[bytes]:
    """The ways in which a path may stand in a database: as it is, in JSON, in a URL, with either slash.

    None when the path says nothing. `stored` is UTF-8; what is not is looked for as it is.
    """
    try:
        path = stored.decode().rstrip("/\\")
    except UnicodeDecodeError:
        stored = stored.rstrip(b"/\\")
        says_something = len(stored) >= MIN_RAW_BYTES and (b"/" in stored or b"\\" in stored)
        return {stored} if says_something else set()
    if _SAYS_NOTHING.fullmatch(path):
        return set()
    found = {path, path.replace("\\", "/")}
    if _WINDOWS.match(path):
        found.add(path.replace("/", "\\"))
    found |= {quote(spelling, safe="/:\\") for spelling in found}
    for spelling in tuple(found):
        plain, escaped = json.dumps(spelling, ensure_ascii=False)[1:-1], json.dumps(spelling)[1:-1]
        upper = _ESCAPE.sub(lambda match: r"\u" + match[0][2:].upper(), escaped)
        found |= {text.replace("/", slash) for text in (plain, escaped, upper) for slash in ("/", r"\/")}
    return {spelling.encode("utf-8", "replace") for spelling in found}


def drop_longer(places: Places) -> dict[bytes, str]:
    """The places without those that hold another: whatever holds a longer one holds the shorter.

    One that is too short to be looked for between values hides no other.
    """
    shorter = [place for place in places if len(place) >= MIN_RAW_BYTES]
    return {
        place: owner
        for place, owner in places.items()
        if not any(other in place for other in shorter if other != place)
    }


def group_alike(places: Iterable[AnyStr]) -> Alike[AnyStr]:
    """Spellings in groups of those that begin alike: where that does not stand, none of them does."""
    groups: dict[AnyStr, list[AnyStr]] = defaultdict(list)
    for place in places:
        groups[place[:_ALIKE_LENGTH]].append(place)
    # A longer beginning is found faster, and in fewer texts.
    return [(_common_prefix(min(group), max(group)), group) for group in groups.values()]


def _common_prefix(first: AnyStr, last: AnyStr) -> AnyStr:
    differing = (at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return first[: next(differing, len(first))]


def holds_place(text: AnyStr, alike: Alike[AnyStr]) -> bool:
    """Whether one of these spellings stands in a text."""
    for beginning, group in alike:
        if beginning in text:
            for place in group:
                if place in text:
                    return True
    return False
