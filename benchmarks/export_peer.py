"""The export as it is usually written: fetch everything, work on it in Python, `executemany` it out.

Invariant: its rows equal those of `publisher.export_snapshot` (the benchmark checks), so that both do the
same work. It shares nothing with it but the schema and the list of private keys, so it is a second witness as
well. It takes the sample as valid: text that is not UTF-8 would stop it.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from contracts.read_model import INDEXES, TABLES
from publisher.metadata import is_private_key


def export_by_fetching(source_db: Path, database: Path) -> None:
    """Write the read model of a valid catalogue to the new file `database`."""
    with closing(sqlite3.connect(source_db)) as source, closing(sqlite3.connect(database)) as target:
        for statement in TABLES.values():
            target.execute(statement)
        playlists = source.execute(
            "SELECT id, platform, remote_playlist_id, name, description, cover_url, play_count,"
            " collected_song_count FROM playlists"
        ).fetchall()
        _insert(target, "catalog_playlists", [(*row[:6], row[6] or 0, row[7] or 0) for row in playlists])
        backends = {
            row[0]: row[1:]
            for row in source.execute(
                "SELECT id, backend_type, name, base_path, config_json FROM storage_backends"
            ).fetchall()
        }
        base_paths = [row[2].rstrip("/") for row in backends.values() if row[2]]
        songs = source.execute(
            "SELECT id, platform, remote_song_id, name, singers, ext, file_size_bytes, metadata_json"
            " FROM songs"
        ).fetchall()
        _insert(
            target,
            "catalog_tracks",
            [(*row[:7], _public_metadata(row[7], base_paths)) for row in songs],
        )
        known_songs = {row[0] for row in songs}
        known_playlists = {row[0] for row in playlists}
        entries: dict[int, list[tuple[int, int | None]]] = defaultdict(list)
        for playlist_id, song_id, position in source.execute("SELECT * FROM playlist_songs").fetchall():
            if playlist_id in known_playlists and song_id in known_songs:
                entries[playlist_id].append((song_id, position))
        _insert(
            target,
            "catalog_playlist_tracks",
            [
                (playlist_id, ordinal, song_id, position)
                for playlist_id, members in entries.items()
                for ordinal, (song_id, position) in enumerate(
                    sorted(members, key=lambda member: (member[1] is None, member[1] or 0, member[0])), 1
                )
            ],
        )
        _insert(target, "catalog_track_files", _files(source, backends, known_songs))
        _insert(target, "catalog_toplists", _toplists(source, {row[0]: row for row in playlists}))
        for statement in INDEXES.values():
            target.execute(statement)
        target.commit()


def _insert(target: sqlite3.Connection, table: str, rows: list[tuple[object, ...]]) -> None:
    if rows:
        target.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)


def _public_metadata(text: str | None, base_paths: list[str]) -> str | None:
    try:
        value = json.loads(text or "")
    except ValueError:
        return None
    public = _without_secrets(value, base_paths)
    if public == value:
        return text
    return json.dumps(public, ensure_ascii=False, separators=(",", ":"))


def _without_secrets(value: Any, base_paths: list[str]) -> Any:
    def is_public(item: Any) -> bool:
        return not (isinstance(item, str) and any(path in item for path in base_paths))

    if isinstance(value, dict):
        return {
            key: _without_secrets(item, base_paths)
            for key, item in value.items()
            if not is_private_key(key) and is_public(item)
        }
    if isinstance(value, list):
        return [_without_secrets(item, base_paths) for item in value if is_public(item)]
    return value


def _files(
    source: sqlite3.Connection, backends: dict[int, tuple[str, ...]], known_songs: set[int]
) -> list[tuple[object, ...]]:
    assets = {
        row[0]: row
        for row in source.execute(
            "SELECT id, song_id, quality_label, ext, file_size_bytes FROM file_assets"
        ).fetchall()
    }
    bases = {}
    for backend_id, (backend_type, _, _, config) in backends.items():
        base = json.loads(config or "{}").get("public_base_url")
        bases[backend_id] = base.rstrip("/") + "/" if base and backend_type == "object_storage" else None
    rows: list[tuple[object, ...]] = []
    for location_id, asset_id, backend_id, locator, status, is_primary in source.execute(
        "SELECT id, file_asset_id, backend_id, locator, status, is_primary FROM file_locations"
    ).fetchall():
        asset = assets.get(asset_id)
        if status != "active" or asset is None or asset[1] not in known_songs or backend_id not in backends:
            continue
        base = bases[backend_id]
        url = None if base is None else base + quote(locator.lstrip("/"), safe="/")
        belongs_to = f"{asset[1]}:{asset_id}:{asset[4]}"
        name = locator if base else f"loc:{location_id}.{sha256(belongs_to.encode()).hexdigest()[:8]}"
        backend = backends[backend_id]
        rows.append((location_id, *asset[1:], backend[0], backend[1], name, url, status, is_primary or 0))
    return rows


def _toplists(
    source: sqlite3.Connection, playlists: dict[int, tuple[object, ...]]
) -> list[tuple[object, ...]]:
    rows: dict[tuple[object, ...], tuple[object, ...]] = {}
    for external_id, name, playlist_id in source.execute(
        "SELECT external_id, name, playlist_id FROM playlist_pools JOIN pool_playlists ON pool_id = id"
        " WHERE pool_kind = 'toplist' ORDER BY id"
    ).fetchall():
        if playlist_id in playlists:
            row = playlists[playlist_id]
            rows.setdefault(
                (external_id, playlist_id),
                (external_id, playlist_id, row[1], *row[3:6], row[6] or 0, row[7] or 0, name),
            )
    return list(rows.values())
