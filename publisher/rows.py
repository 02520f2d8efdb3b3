"""The rows of the read model, as one SELECT per table over the attached catalogue.

Invariant: what these queries return is public: no path, no secret, only valid UTF-8, only rows whose ids all
exist, and one identity per row that does not depend on how the source happens to be stored.
The queries decide content and order; publisher/export.py decides where the rows go.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection
from typing import NamedTuple
from urllib.parse import quote_from_bytes

from contracts.handles import format_handle
from publisher.backends import Backends, load_backends, repair_text
from publisher.metadata import public_metadata

_CHUNK_ROWS = 1024  # rows whose text is checked at a time; some 100 KiB
# What stands for each byte in a URL's path: RFC 3986, sections 2.1, 2.3 and 3.3.
_PERCENT_ENCODED = [quote_from_bytes(bytes([byte])) for byte in range(256)]


def prepare(
    connection: sqlite3.Connection,
    tables: Collection[str],
    wanted: Collection[str],
    metadata_keys: Collection[str] | None = None,
    invalid: Collection[str] | None = None,
) -> dict[str, str]:
    """The query for each wanted table of the read model, over `source` attached to `connection`.

    Must run in the transaction in which the queries run. A table that needs one the catalogue lacks has no
    query. `metadata_keys`, when given, are the only top-level keys of `metadata_json` kept. `invalid` is what
    `find_invalid_text` has found, when that was asked already.
    Raises:
        SourceError: when a public base URL holds a user or a password.
        sqlite3.Error: when the catalogue cannot be read.
    """
    define(connection, tables, metadata_keys)
    if not _NEED_EXISTING_IDS.isdisjoint(wanted):
        define_existing_ids(connection)
    available = [name for name in _QUERIES if name in wanted and is_available(name, tables)]
    if invalid is None:
        read = {table for name in available for table in _QUERIES[name].text_from}
        invalid = find_invalid_text(connection, read)
    return {name: select(name, invalid).query for name in available}


def define(
    connection: sqlite3.Connection, tables: Collection[str], metadata_keys: Collection[str] | None
) -> Backends:
    """Define the functions and the table of backends that selections need; as `prepare`."""
    connection.execute(
        "CREATE TEMP TABLE backends(id INTEGER PRIMARY KEY, type TEXT, name TEXT, base_url TEXT)"
    )
    backends = load_backends(connection) if "storage_backends" in tables else Backends([], {})
    connection.executemany("INSERT INTO temp.backends VALUES (?, ?, ?, ?)", backends.public)
    connection.create_function(
        "public_metadata", 1, public_metadata(backends.places, metadata_keys), deterministic=True
    )
    connection.create_function("repaired_text", 1, repair_text, deterministic=True)
    connection.create_function("percent_encode", 1, _percent_encode, deterministic=True)
    connection.create_function("handle", 4, format_handle, deterministic=True)
    return backends


def define_existing_ids(connection: sqlite3.Connection, songs: str = "SELECT id FROM source.songs") -> None:
    """Define what tells which playlists exist, and which of the `songs` that a query names.

    They are looked up millions of times in no order: it must be small enough to stay in a cache. The songs
    are a bitmap, 32 ids to a row.
    """
    for statement in (
        "CREATE TEMP TABLE playlist_ids(id INTEGER PRIMARY KEY)",
        "INSERT INTO temp.playlist_ids SELECT id FROM source.playlists ORDER BY id",
        "CREATE TEMP TABLE song_ids(block INTEGER PRIMARY KEY, bits INTEGER NOT NULL)",
        f"INSERT INTO temp.song_ids SELECT id >> 5, sum(1 << (id & 31)) FROM ({songs}) GROUP BY 1 ORDER BY 1",
    ):
        connection.execute(statement)


def is_available(name: str, tables: Collection[str]) -> bool:
    """Whether a catalogue that has `tables` can fill a table of the read model."""
    return _QUERIES[name].needed.issubset(tables)


class Selection(NamedTuple):
    """A query in parts: what each column of a table of the read model is, over which rows, in which order.

    `joined`: tables, each with an `id` that must be as its condition says; `song_id` must exist, too.
    """

    columns: dict[str, str]
    table: str
    condition: str = "true"
    joined: tuple[tuple[str, str], ...] = ()
    song_id: str | None = None
    order: str = ""

    @property
    def tables(self) -> str:
        return self.table + "".join(f" CROSS JOIN {table} ON {matches}" for table, matches in self.joined)

    @property
    def rows(self) -> str:
        """What follows FROM, but for the order."""
        exists = "" if self.song_id is None else f" CROSS JOIN temp.song_ids ON {song_exists(self.song_id)}"
        return f"{self.tables}{exists} WHERE {self.condition}"

    @property
    def query(self) -> str:
        order = f" ORDER BY {self.order}" if self.order else ""
        return f"SELECT {', '.join(self.columns.values())} FROM {self.rows}{order}"


def select(name: str, invalid: Collection[str] = ()) -> Selection:
    """How a table of the read model is filled; the source's tables in `invalid` have text to repair."""
    return _QUERIES[name].select(invalid)


def song_exists(song_id: str) -> str:
    """A condition on `temp.song_ids`: the song is one of those given to `define_existing_ids`."""
    return (
        f"song_ids.block = {song_id} >> 5 AND song_ids.bits >> ({song_id} & 31) & 1"
        f" AND {song_id} = CAST({song_id} AS INTEGER)"
    )


def _percent_encode(stored: bytes) -> str:
    return stored.decode("latin-1").translate(_PERCENT_ENCODED)


# The columns whose text becomes public, of each table of the source that has any.
_TEXT_COLUMNS = {
    "playlists": ("platform", "remote_playlist_id", "name", "description", "cover_url"),
    "songs": ("platform", "remote_song_id", "name", "singers", "ext"),
    "playlist_pools": ("external_id", "name"),
    "file_assets": ("quality_label", "ext"),
    "file_locations": ("locator",),
}
TEXT_TABLES = frozenset(_TEXT_COLUMNS)


def find_invalid_text(connection: sqlite3.Connection, tables: Collection[str]) -> set[str]:
    """Those of the source's `tables` (of `TEXT_TABLES`) that hold text that is not UTF-8.

    Takes a good part of an export, and may be asked of several connections at once.
    Raises:
        sqlite3.Error: when the catalogue cannot be read.
    """
    return {table for table in tables if _has_invalid_text(connection, table, _TEXT_COLUMNS[table])}


def _has_invalid_text(connection: sqlite3.Connection, table: str, columns: Collection[str]) -> bool:
    """Whether any of these columns holds text that is not UTF-8.

    A comma never continues a sequence, so values joined by it are valid if and only if each is.
    """
    joined = ", ".join(f"CAST(group_concat({column}) AS BLOB)" for column in columns)
    first = f"SELECT id FROM source.{table} WHERE id > ? ORDER BY id LIMIT {_CHUNK_ROWS}"
    before = -(1 << 63)
    while True:
        (last,) = connection.execute(f"SELECT max(id) FROM ({first})", (before,)).fetchone()
        if last is None:
            return False
        chunk = f"SELECT {joined} FROM source.{table} WHERE id > ? AND id <= ?"
        texts = connection.execute(chunk, (before, last)).fetchone()
        try:
            b",".join(filter(None, texts)).decode()
        except UnicodeDecodeError:
            return True
        before = last


def _text(invalid: Collection[str], table: str) -> dict[str, str]:
    """For each text column the expression of its public text; calls a function only when some is invalid."""
    form = "repaired_text(CAST({0} AS BLOB))" if table in invalid else "CAST({0} AS TEXT)"
    return {column: form.format(f"{table}.{column}") for column in _TEXT_COLUMNS[table]}


def _playlists(invalid: Collection[str]) -> Selection:
    columns = {
        "playlist_id": "playlists.id",
        **_text(invalid, "playlists"),
        "play_count": "coalesce(CAST(playlists.play_count AS INTEGER), 0)",
        "song_count": "coalesce(CAST(playlists.collected_song_count AS INTEGER), 0)",
    }
    return Selection(columns, "source.playlists", order="playlists.id")


def _tracks(invalid: Collection[str]) -> Selection:
    columns = {
        "song_id": "songs.id",
        **_text(invalid, "songs"),
        "file_size_bytes": "CAST(songs.file_size_bytes AS INTEGER)",
        "metadata_json": "CAST(public_metadata(CAST(songs.metadata_json AS BLOB)) AS TEXT)",
    }
    return Selection(columns, "source.songs", order="songs.id")


# The source's table has no key: the place within the playlist is the identity, and rowids, which VACUUM
# renumbers, decide nothing. Rows that tie are alike.
ENTRY_ORDER = "playlist_songs.position NULLS LAST, playlist_songs.song_id"


def _playlist_tracks(invalid: Collection[str]) -> Selection:
    columns = {
        "playlist_id": "playlist_songs.playlist_id",
        "ordinal": f"row_number() OVER (PARTITION BY playlist_songs.playlist_id ORDER BY {ENTRY_ORDER})",
        "song_id": "playlist_songs.song_id",
        "position": "CAST(playlist_songs.position AS INTEGER)",
    }
    condition = "playlist_songs.playlist_id IN (SELECT id FROM temp.playlist_ids)"
    return Selection(columns, "source.playlist_songs", condition, song_id="playlist_songs.song_id")


def _track_files(invalid: Collection[str]) -> Selection:
    asset = _text(invalid, "file_assets")
    location = _text(invalid, "file_locations")
    columns = {
        "location_id": "file_locations.id",
        "song_id": "file_assets.song_id",
        "quality_label": asset["quality_label"],
        "ext": asset["ext"],
        "file_size_bytes": "CAST(file_assets.file_size_bytes AS INTEGER)",
        "backend_type": "backends.type",
        "backend_name": "backends.name",
        "locator": f"""CASE WHEN backends.base_url IS NULL
            THEN handle(file_locations.id, file_assets.song_id, file_assets.id, file_assets.file_size_bytes)
            ELSE {location["locator"]} END""",
        "public_url": """CASE WHEN backends.base_url IS NOT NULL
            THEN backends.base_url || percent_encode(CAST(ltrim(file_locations.locator, '/') AS BLOB)) END""",
        "status": "file_locations.status",
        "is_primary": "coalesce(CAST(file_locations.is_primary AS INTEGER), 0)",
    }
    return Selection(
        columns,
        "source.file_locations",
        # A handle has no sign (contracts/handles.py).
        "file_locations.status = 'active' AND file_locations.locator <> '' AND file_locations.id >= 0",
        joined=(
            ("source.file_assets", "file_assets.id = file_locations.file_asset_id"),
            ("temp.backends", "backends.id = file_locations.backend_id"),
        ),
        song_id="file_assets.song_id",
        order="file_locations.id",
    )


def _toplists(invalid: Collection[str]) -> Selection:
    pool = _text(invalid, "playlist_pools")
    playlist = _playlists(invalid).columns
    columns = {
        "toplist_id": f"coalesce({pool['external_id']}, '')",
        "playlist_id": "playlists.id",
        "platform": f"coalesce({playlist['platform']}, '')",
        **{name: playlist[name] for name in ("name", "description", "cover_url", "play_count", "song_count")},
        "group_name": pool["name"],
    }
    # Two pools may hold one playlist under one external id: the lowest pool id wins.
    place = (
        f"row_number() OVER (PARTITION BY {columns['toplist_id']}, playlists.id ORDER BY playlist_pools.id)"
    )
    listed = ", ".join(f"{expression} AS {name}" for name, expression in columns.items())
    return Selection(
        {name: name for name in columns},
        f"""(
            SELECT {listed}, {place} AS place
            FROM source.playlist_pools
            JOIN source.pool_playlists ON pool_playlists.pool_id = playlist_pools.id
            JOIN source.playlists ON playlists.id = pool_playlists.playlist_id
            WHERE playlist_pools.pool_kind = 'toplist'
        )""",
        "place = 1",
        order="platform, toplist_id, playlist_id",
    )


class _Query(NamedTuple):
    """How a query is made, given the tables with invalid text; whose text it has; which tables it needs."""

    select: Callable[[Collection[str]], Selection]
    text_from: tuple[str, ...]
    needed: frozenset[str] = frozenset()


_QUERIES = {
    "catalog_playlists": _Query(_playlists, ("playlists",)),
    "catalog_tracks": _Query(_tracks, ("songs",)),
    "catalog_playlist_tracks": _Query(_playlist_tracks, ()),
    "catalog_track_files": _Query(
        _track_files,
        ("file_assets", "file_locations"),
        frozenset({"file_assets", "file_locations", "storage_backends"}),
    ),
    "catalog_toplists": _Query(
        _toplists, ("playlist_pools", "playlists"), frozenset({"playlist_pools", "pool_playlists"})
    ),
}
_NEED_EXISTING_IDS = {"catalog_playlist_tracks", "catalog_track_files"}
