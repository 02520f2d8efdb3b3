"""Looks through the bytes of a database for places on the NAS, which must never become public.

Invariant: a place is found in any of its spellings, in rows and between them, unless the catalogue itself
publishes the text that holds it: a URL, a name, a description. The file is read in pieces; memory is bounded
by one of them.

What is looked for is what the export leaves out: `backends.load_places`. A path shorter than 4 bytes turns up
by chance between values, so it is looked for in private values only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

from contracts.errors import MalformedError
from publisher import backends
from publisher.places import MIN_RAW_BYTES, Places, group_alike
from publisher.source import LOCK_TIMEOUT_S, source_errors
from stores.files import verify_space

_PIECE_BYTES = 1 << 20
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
    uri = f"{source_db.resolve().as_uri()}?mode=ro"
    with (
        source_errors(source_db),
        closing(sqlite3.connect(uri, uri=True, timeout=LOCK_TIMEOUT_S)) as catalogue,
    ):
        if not catalogue.execute("SELECT 1 FROM sqlite_master WHERE name = 'storage_backends'").fetchone():
            return {}
        return backends.load_places(catalogue, "main")


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
    short = {place for place in places if len(place) < MIN_RAW_BYTES}
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
                        "not become public; nothing was uploaded: run publish again, and with --rebuild when "
                        "that does not help"
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
    alike = group_alike(places)
    overlap = max(map(len, places), default=1) - 1
    for window in _windows(database, overlap, report):
        for prefix, group in alike:
            if prefix in window:
                found.update(place for place in group if place in window)
    return found


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
