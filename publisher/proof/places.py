"""Looks through the bytes of a database for places on the NAS, which must never become public.

Invariant: a place is found in any of its spellings, in rows and between them, unless the catalogue itself
publishes the text that holds it: a URL, a name, a description. The file is read in pieces; memory is bounded
by one of them.

What is looked for: every backend's `base_path`, and every absolute path of two or more parts in its
`config_json` under a key that names a place. A base path that is empty, `/` or a drive says nothing and is
left out. A path shorter than 4 bytes turns up by chance between values, so it is looked for in private values
only.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from contracts.errors import MalformedError
from publisher.metadata import is_private_key
from publisher.source import LOCK_TIMEOUT_S, source_errors
from stores.files import verify_space

Places = Mapping[bytes, str]
"""The spellings of places, none within another, and whose place each is."""

_PIECE_BYTES = 1 << 20
_MIN_RAW_BYTES = 4
_PREFIX_BYTES = 4  # spellings that begin alike are looked for together
# What a path must be to say something: a drive ("D:") or one dot does not.
_SAYS_NOTHING = re.compile(r"[A-Za-z]:|\.{0,2}|.")
# A path of two parts or more: "/dav" in a configuration is rather a part of a URL.
_ABSOLUTE = re.compile(r"(?:[A-Za-z]:|[/\\])[/\\]?[^/\\]+[/\\][^/\\].*", re.DOTALL)
_PLACE_KEYS = ("root", "mount", "base", "dir")  # beside those that `is_private_key` knows
_ESCAPE = re.compile(r"\\u[0-9a-f]{4}")
# Neither a handle (contracts/handles.py), which spells no path without a slash, nor one with a public URL.
_FOREIGN_LOCATOR = (
    "SELECT location_id FROM catalog_track_files WHERE public_url IS NULL"
    " AND (locator NOT GLOB 'loc:[0-9]*' OR instr(locator, '/') OR instr(locator, char(92))) LIMIT 1"
)
# Every other column holds what the catalogue publishes as it stands.
_IN_METADATA = "SELECT song_id FROM catalog_tracks WHERE instr(CAST(metadata_json AS BLOB), ?) LIMIT 1"


def load_places(source_db: Path) -> Places:
    """The places that a catalogue names.

    Raises:
        SourceError: when it cannot be read.
    """
    places: dict[bytes, str] = {}
    uri = f"{source_db.resolve().as_uri()}?mode=ro"
    with (
        source_errors(source_db),
        closing(sqlite3.connect(uri, uri=True, timeout=LOCK_TIMEOUT_S)) as catalogue,
    ):
        if not catalogue.execute("SELECT 1 FROM sqlite_master WHERE name = 'storage_backends'").fetchone():
            return {}
        for name, base_path, config in catalogue.execute(
            "SELECT CAST(name AS BLOB), CAST(base_path AS BLOB), CAST(config_json AS BLOB)"
            " FROM storage_backends ORDER BY id"
        ):
            owner = repr((name or b"").decode("utf-8", "replace"))
            for spelling in spellings(base_path or b""):
                places.setdefault(spelling, f"the base path of storage backend {owner}")
            for path in _configured_paths(config):
                for spelling in spellings(path.encode("utf-8", "replace")):
                    places.setdefault(spelling, f"a path in the config_json of storage backend {owner}")
    # Whatever holds a longer one holds the shorter.
    return {
        spelling: owner
        for spelling, owner in places.items()
        if not any(other in spelling for other in places if other != spelling)
    }


def spellings(stored: bytes) -> set[bytes]:
    """The ways in which a path may stand in a database: as it is, in JSON, in a URL, with either slash.

    `stored` is UTF-8; what is not is looked for as it is.
    """
    try:
        path = stored.decode().rstrip("/\\")
    except UnicodeDecodeError:
        stored = stored.rstrip(b"/\\")
        return {stored} if len(stored) >= _MIN_RAW_BYTES else set()
    if _SAYS_NOTHING.fullmatch(path):
        return set()
    found = {path, path.replace("\\", "/")}
    found |= {quote(spelling, safe="/:\\") for spelling in found}
    for spelling in tuple(found):
        plain, escaped = json.dumps(spelling, ensure_ascii=False)[1:-1], json.dumps(spelling)[1:-1]
        upper = _ESCAPE.sub(lambda match: r"\u" + match[0][2:].upper(), escaped)
        found |= {text.replace("/", slash) for text in (plain, escaped, upper) for slash in ("/", r"\/")}
    return {spelling.encode() for spelling in found}


def verify_no_places(
    database: Path,
    places: Places,
    scratch: Callable[[], AbstractContextManager[Path]],
    report: Callable[[int], None] = lambda size_bytes: None,
) -> None:
    """Check that a database file, which is a read model, names no place but in what the catalogue publishes.

    `scratch` gives a folder to look closer in, and `report` is told of every byte read.
    Raises:
        MalformedError: naming the row, or that the bytes belong to none.
        OSError: when the file cannot be read, or there is no room to look closer.
    """
    short = {place for place in places if len(place) < _MIN_RAW_BYTES}
    found = find_places(database, places.keys() - short, report)
    with closing(
        sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    ) as connection:
        connection.execute("PRAGMA trusted_schema=OFF")
        try:
            foreign = connection.execute(_FOREIGN_LOCATOR).fetchone()
            if foreign:
                raise MalformedError(
                    f"catalog_track_files.locator of location_id {foreign[0]} is neither a handle nor "
                    "public; nothing was uploaded: run publish again with --rebuild"
                )
            for place in sorted(found | short):
                row = connection.execute(_IN_METADATA, (place,)).fetchone()
                if row:
                    raise MalformedError(
                        f"catalog_tracks.metadata_json of song_id {row[0]} holds {places[place]}, which must "
                        "not become public; nothing was uploaded: correct that song's metadata_json in the "
                        "catalogue, or choose with MUSIC_CLOUD_METADATA_KEYS which of its keys are published"
                    )
        except sqlite3.DatabaseError as error:
            raise MalformedError(
                f"the new database cannot be read ({error}); nothing was uploaded"
            ) from error
        if found:
            with scratch() as folder:
                _verify_between_rows(connection, database, {place: places[place] for place in found}, folder)


def find_places(database: Path, places: Collection[bytes], report: Callable[[int], None]) -> set[bytes]:
    """Those of some spellings that a file holds anywhere, also in what belongs to no row.

    Raises:
        OSError: when the file cannot be read.
    """
    found: set[bytes] = set()
    groups: dict[bytes, list[bytes]] = defaultdict(list)
    for place in places:
        groups[place[:_PREFIX_BYTES]].append(place)
    alike = [(_common_prefix(group), group) for group in groups.values()]
    overlap = max(map(len, places), default=1) - 1
    for window in _windows(database, overlap, report):
        for prefix, group in alike:  # a longer one is found faster
            if prefix in window:
                found.update(place for place in group if place in window)
    return found


def _common_prefix(group: Collection[bytes]) -> bytes:
    first, last = min(group), max(group)
    differing = (at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return first[: next(differing, len(first))]


def _windows(database: Path, overlap: int, report: Callable[[int], None]) -> Iterator[bytes]:
    """The content of a file in pieces, each with the last `overlap` bytes before it."""
    tail = b""
    with database.open("rb", buffering=0) as stream:
        while piece := stream.read(_PIECE_BYTES):
            window = tail + piece
            yield window
            tail = window[len(window) - overlap :] if overlap else b""
            report(len(piece))


def _verify_between_rows(
    connection: sqlite3.Connection, database: Path, places: Places, folder: Path
) -> None:
    """Check that these places stand in rows alone.

    A copy made by VACUUM holds every row and nothing else, and cuts a long value where the original does: so
    a place that stands there less often stands between rows here.
    """
    verify_space(folder, database.stat().st_size, "a closer look at the new database")
    compact = folder / "compact.db"
    connection.execute("PRAGMA temp_store=FILE")
    connection.execute("VACUUM INTO ?", (compact.resolve().as_uri(),))
    for place, owner in places.items():
        if _count(database, place) > _count(compact, place):
            raise MalformedError(
                f"the new database holds {owner} in bytes that belong to no row; nothing was uploaded: run "
                "publish again with --rebuild, which writes it anew"
            )


def _count(database: Path, place: bytes) -> int:
    """How often a place stands in a file, overlaps included."""
    count = 0
    for window in _windows(database, len(place) - 1, lambda size_bytes: None):
        at = window.find(place)
        while at >= 0:
            count += 1
            at = window.find(place, at + 1)
    return count


def _configured_paths(config_json: bytes | None) -> Iterator[str]:
    """The absolute paths in a backend's configuration, under keys that name a place."""
    try:
        config = json.loads(config_json or b"{}")
    except (ValueError, RecursionError):
        return
    pending: list[tuple[str, Any]] = [("", config)]
    while pending:
        key, value = pending.pop()
        if isinstance(value, dict):
            pending += [(f"{name}", item) for name, item in value.items()]
        elif isinstance(value, list):
            pending += [(key, item) for item in value]
        elif isinstance(value, str) and _names_place(key) and _ABSOLUTE.fullmatch(value):
            yield value


def _names_place(key: str) -> bool:
    return is_private_key(key) or any(part in key.lower() for part in _PLACE_KEYS)
