"""The rows of the read model, as one SELECT per table over the attached catalogue.

Invariant: what these queries return is public: no path, no secret, only valid UTF-8, only rows whose ids all
exist, and one identity per row that does not depend on how the source happens to be stored.
The queries decide content and order; publisher/export.py decides where the rows go.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Collection
from typing import NamedTuple
from urllib.parse import quote_from_bytes

import msgspec

from contracts.errors import SourceError
from contracts.handles import format_handle
from publisher.metadata import public_metadata

_CHUNK_ROWS = 1024  # rows whose text is checked at a time; some 100 KiB
# A user or password before the host; browsers take any number of slashes of either kind in front of both.
_USERINFO = re.compile(r"\s*([a-z][a-z0-9+.-]*:)?[/\\]*[^/\\?#]*@", re.IGNORECASE)
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
    base_paths = _prepare_backends(connection, "storage_backends" in tables)
    connection.create_function(
        "public_metadata", 1, public_metadata(base_paths, metadata_keys), deterministic=True
    )
    connection.create_function("repaired_text", 1, _repaired_text, deterministic=True)
    connection.create_function("percent_encode", 1, _percent_encode, deterministic=True)
    connection.create_function("handle", 4, format_handle, deterministic=True)
    if not _NEED_EXISTING_IDS.isdisjoint(wanted):
        for statement in _EXISTING_IDS:
            connection.execute(statement)
    available = [name for name in _QUERIES if name in wanted and _QUERIES[name].needed.issubset(tables)]
    if invalid is None:
        read = {table for name in available for table in _QUERIES[name].text_from}
        invalid = find_invalid_text(connection, read)
    return {name: _QUERIES[name].format(invalid) for name in available}


# Playlists and songs are looked up millions of times in no order: what tells whether one exists must be small
# enough to stay in a cache. The songs are a bitmap, 32 ids to a row.
_EXISTING_IDS = (
    "CREATE TEMP TABLE playlist_ids(id INTEGER PRIMARY KEY)",
    "INSERT INTO temp.playlist_ids SELECT id FROM source.playlists ORDER BY id",
    "CREATE TEMP TABLE song_ids(block INTEGER PRIMARY KEY, bits INTEGER NOT NULL)",
    "INSERT INTO temp.song_ids SELECT id >> 5, sum(1 << (id & 31)) FROM source.songs GROUP BY 1 ORDER BY 1",
)


def _song_exists(song_id: str) -> str:
    return (
        f"song_ids.block = {song_id} >> 5 AND song_ids.bits >> ({song_id} & 31) & 1"
        f" AND {song_id} = CAST({song_id} AS INTEGER)"
    )


def _prepare_backends(connection: sqlite3.Connection, present: bool) -> list[str]:
    """Fill temp.backends with what may be public of each backend; returns the base paths, which may not."""
    connection.execute(
        "CREATE TEMP TABLE backends(id INTEGER PRIMARY KEY, type TEXT, name TEXT, base_url TEXT)"
    )
    if not present:
        return []
    base_paths = []
    for backend_id, backend_type, name, base_path, config_json in connection.execute(
        "SELECT id, CAST(backend_type AS BLOB), CAST(name AS BLOB), CAST(base_path AS BLOB),"
        " CAST(config_json AS BLOB) FROM source.storage_backends ORDER BY id"
    ).fetchall():
        backend_type, name, base_path = map(_repaired_text, (backend_type, name, base_path))
        base_url = _public_base_url(name, config_json) if backend_type == "object_storage" else None
        connection.execute(
            "INSERT INTO temp.backends VALUES (?, ?, ?, ?)", (backend_id, backend_type, name, base_url)
        )
        if base_path:
            base_paths.append(base_path.rstrip("/\\"))
    return base_paths


def _public_base_url(backend_name: str | None, config_json: bytes | None) -> str | None:
    """The base of a backend's public URLs, ending in one slash, or None."""
    try:
        config = msgspec.json.decode(config_json or b"{}", type=_BackendConfig)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    base_url = (config.public_base_url or "").strip()
    if not base_url:
        return None
    if _USERINFO.match(base_url):
        raise SourceError(
            f"storage backend {backend_name!r}: its public_base_url holds a user name or a password, "
            "which would become public; remove it"
        )
    return base_url.rstrip("/") + "/"


class _BackendConfig(msgspec.Struct):
    public_base_url: str | None = None


def _percent_encode(stored: bytes) -> str:
    return stored.decode("latin-1").translate(_PERCENT_ENCODED)


def _repaired_text(stored: bytes | None) -> str | None:
    return None if stored is None else stored.decode("utf-8", "replace")


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


def _playlists(invalid: Collection[str]) -> str:
    text = _text(invalid, "playlists")
    return f"""
        SELECT id, {text["platform"]}, {text["remote_playlist_id"]}, {text["name"]}, {text["description"]},
            {text["cover_url"]}, coalesce(CAST(play_count AS INTEGER), 0),
            coalesce(CAST(collected_song_count AS INTEGER), 0)
        FROM source.playlists ORDER BY id"""


def _tracks(invalid: Collection[str]) -> str:
    text = _text(invalid, "songs")
    return f"""
        SELECT id, {text["platform"]}, {text["remote_song_id"]}, {text["name"]}, {text["singers"]},
            {text["ext"]}, CAST(file_size_bytes AS INTEGER),
            CAST(public_metadata(CAST(metadata_json AS BLOB)) AS TEXT)
        FROM source.songs ORDER BY id"""


# The source's table has no key: the place within the playlist is the identity, and rowids, which VACUUM
# renumbers, decide nothing. Rows that tie are alike.
def _playlist_tracks(invalid: Collection[str]) -> str:
    return f"""
        SELECT playlist_id, row_number() OVER (
                PARTITION BY playlist_id ORDER BY position NULLS LAST, song_id
            ), song_id, CAST(position AS INTEGER)
        FROM source.playlist_songs
        CROSS JOIN temp.song_ids ON {_song_exists("song_id")}
        WHERE playlist_id IN (SELECT id FROM temp.playlist_ids)"""


def _track_files(invalid: Collection[str]) -> str:
    asset = _text(invalid, "file_assets")
    location = _text(invalid, "file_locations")
    return f"""
        SELECT file_locations.id, file_assets.song_id, {asset["quality_label"]}, {asset["ext"]},
            CAST(file_assets.file_size_bytes AS INTEGER), backends.type, backends.name,
            CASE WHEN backends.base_url IS NULL
                THEN handle(
                    file_locations.id, file_assets.song_id, file_assets.id, file_assets.file_size_bytes
                )
                ELSE {location["locator"]} END,
            CASE WHEN backends.base_url IS NOT NULL
                THEN backends.base_url
                    || percent_encode(CAST(ltrim(file_locations.locator, '/') AS BLOB)) END,
            file_locations.status, coalesce(CAST(file_locations.is_primary AS INTEGER), 0)
        FROM source.file_locations
        CROSS JOIN source.file_assets ON file_assets.id = file_locations.file_asset_id
        CROSS JOIN temp.song_ids ON {_song_exists("file_assets.song_id")}
        CROSS JOIN temp.backends ON backends.id = file_locations.backend_id
        WHERE file_locations.status = 'active' AND file_locations.locator <> ''
        ORDER BY file_locations.id"""


def _toplists(invalid: Collection[str]) -> str:
    pool = _text(invalid, "playlist_pools")
    playlist = _text(invalid, "playlists")
    toplist_id = f"coalesce({pool['external_id']}, '')"
    # Two pools may hold one playlist under one external id: the lowest pool id wins.
    return f"""
        SELECT toplist_id, playlist_id, platform, name, description, cover_url, play_count, song_count,
            group_name
        FROM (
            SELECT {toplist_id} AS toplist_id, playlists.id AS playlist_id,
                coalesce({playlist["platform"]}, '') AS platform, {playlist["name"]} AS name,
                {playlist["description"]} AS description, {playlist["cover_url"]} AS cover_url,
                coalesce(CAST(playlists.play_count AS INTEGER), 0) AS play_count,
                coalesce(CAST(playlists.collected_song_count AS INTEGER), 0) AS song_count,
                {pool["name"]} AS group_name,
                row_number() OVER (
                    PARTITION BY {toplist_id}, playlists.id ORDER BY playlist_pools.id
                ) AS place
            FROM source.playlist_pools
            JOIN source.pool_playlists ON pool_playlists.pool_id = playlist_pools.id
            JOIN source.playlists ON playlists.id = pool_playlists.playlist_id
            WHERE playlist_pools.pool_kind = 'toplist'
        )
        WHERE place = 1 ORDER BY platform, toplist_id, playlist_id"""


class _Query(NamedTuple):
    """How a query is made, given the tables with invalid text; whose text it has; which tables it needs."""

    format: Callable[[Collection[str]], str]
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
