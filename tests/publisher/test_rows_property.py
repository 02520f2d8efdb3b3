"""Whatever a small catalogue holds, its export holds what a naive model in Python says it should."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.publisher import create_catalogue, export, read

Row = dict[str, Any]
Catalogue = dict[str, list[Row]]

BASE = "https://media.example.com"
# RFC 3986, section 2.3, and the slash between segments.
UNENCODED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/"
# As stored, and what of it is public.
METADATA = {
    None: None,
    '{"album": "七里香"}': '{"album": "七里香"}',
    '{"album": "x", "cookie": "y"}': '{"album":"x"}',
    '{"f": "/volume1/music/x"}': "{}",
    "{": None,
}
CONFIGS = [None, "{", "{}", json.dumps({"public_base_url": ""}), json.dumps({"public_base_url": BASE + "//"})]

ids = st.integers(0, 3)
counts = st.none() | st.integers(0, 9)
texts = st.none() | st.sampled_from(
    ["", "qq", "中文 #1?.mp3", "/a//b%", b"\xff", b"a\xe4\xb8", b"\xe4\xb8\xad"]
).map(lambda text: text.encode() if isinstance(text, str) else text)


def rows(*, key: bool = True, **columns: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Row]]:
    if key:
        row = st.fixed_dictionaries({"id": ids, **columns})
        return st.lists(row, max_size=4, unique_by=lambda found: int(found["id"]))
    return st.lists(st.fixed_dictionaries(columns), max_size=10)


catalogues = st.fixed_dictionaries(
    {
        "playlists": rows(
            platform=texts,
            remote_playlist_id=texts,
            name=texts,
            description=texts,
            cover_url=texts,
            play_count=counts,
            collected_song_count=counts,
        ),
        "songs": rows(
            platform=texts,
            remote_song_id=texts,
            name=texts,
            singers=texts,
            ext=texts,
            file_size_bytes=counts,
            metadata_json=st.sampled_from(list(METADATA)),
        ),
        "playlist_songs": rows(key=False, playlist_id=ids, song_id=ids, position=counts),
        "playlist_pools": rows(
            pool_kind=st.sampled_from(["toplist", "toplist", "category"]), external_id=texts, name=texts
        ),
        "pool_playlists": rows(key=False, pool_id=ids, playlist_id=ids),
        "storage_backends": rows(
            name=texts,
            backend_type=st.sampled_from(["object_storage", "nas"]),
            base_path=st.sampled_from([None, "/volume1/music/"]),
            config_json=st.sampled_from(CONFIGS),
        ),
        "file_assets": rows(song_id=ids, quality_label=texts, ext=texts, file_size_bytes=counts),
        "file_locations": rows(
            file_asset_id=ids,
            backend_id=ids,
            locator=texts,
            status=st.sampled_from(["active", "active", "missing", None]),
            is_primary=st.sampled_from([None, 0, 1]),
        ),
    }
)


def text(stored: bytes | None) -> str | None:
    return None if stored is None else stored.decode("utf-8", "replace")


def texts_of(row: Row, *columns: str) -> tuple[str | None, ...]:
    return tuple(text(row[column]) for column in columns)


def expected_playlists(catalogue: Catalogue) -> list[tuple[Any, ...]]:
    return [
        (
            row["id"],
            *texts_of(row, "platform", "remote_playlist_id", "name", "description", "cover_url"),
            row["play_count"] or 0,
            row["collected_song_count"] or 0,
        )
        for row in catalogue["playlists"]
    ]


def expected_tracks(catalogue: Catalogue) -> list[tuple[Any, ...]]:
    has_place = any(row["base_path"] for row in catalogue["storage_backends"])
    return [
        (
            row["id"],
            *texts_of(row, "platform", "remote_song_id", "name", "singers", "ext"),
            row["file_size_bytes"],
            # Without a backend, no text is known to be a place.
            METADATA[row["metadata_json"]]
            if has_place or "volume1" not in (row["metadata_json"] or "")
            else row["metadata_json"],
        )
        for row in catalogue["songs"]
    ]


def expected_playlist_tracks(catalogue: Catalogue) -> list[tuple[Any, ...]]:
    songs = {row["id"] for row in catalogue["songs"]}
    members: dict[int, list[tuple[bool, int, int]]] = defaultdict(list)
    for row in catalogue["playlist_songs"]:
        if row["song_id"] in songs:
            members[row["playlist_id"]].append(
                (row["position"] is None, row["position"] or 0, row["song_id"])
            )
    return [
        (playlist["id"], ordinal, song_id, None if unplaced else position)
        for playlist in catalogue["playlists"]
        for ordinal, (unplaced, position, song_id) in enumerate(sorted(members[playlist["id"]]), 1)
    ]


def expected_files(catalogue: Catalogue) -> list[tuple[Any, ...]]:
    songs = {row["id"] for row in catalogue["songs"]}
    assets = {row["id"]: row for row in catalogue["file_assets"]}
    backends = {row["id"]: row for row in catalogue["storage_backends"]}
    found = []
    for row in catalogue["file_locations"]:
        asset, backend = assets.get(row["file_asset_id"]), backends.get(row["backend_id"])
        if row["status"] != "active" or not row["locator"] or asset is None or backend is None:
            continue
        if asset["song_id"] not in songs:
            continue
        size = "" if asset["file_size_bytes"] is None else asset["file_size_bytes"]
        check = hashlib.sha256(f"{asset['song_id']}:{asset['id']}:{size}".encode()).hexdigest()[:8]
        locator: str | None = f"loc:{row['id']}.{check}"
        url = None
        if backend["backend_type"] == "object_storage" and BASE in (backend["config_json"] or ""):
            key = row["locator"].lstrip(b"/")
            locator = text(row["locator"])
            url = f"{BASE}/" + "".join(chr(byte) if byte in UNENCODED else f"%{byte:02X}" for byte in key)
        found.append(
            (
                row["id"],
                asset["song_id"],
                *texts_of(asset, "quality_label", "ext"),
                asset["file_size_bytes"],
                backend["backend_type"],
                text(backend["name"]),
                locator,
                url,
                "active",
                row["is_primary"] or 0,
            )
        )
    return found


def expected_toplists(catalogue: Catalogue) -> list[tuple[Any, ...]]:
    playlists = {row["id"]: row for row in catalogue["playlists"]}
    members = {(row["pool_id"], row["playlist_id"]) for row in catalogue["pool_playlists"]}
    found: dict[tuple[str, int], tuple[Any, ...]] = {}
    for pool in sorted(catalogue["playlist_pools"], key=lambda row: int(row["id"])):
        for pool_id, playlist_id in members:
            if pool_id == pool["id"] and playlist_id in playlists and pool["pool_kind"] == "toplist":
                playlist = playlists[playlist_id]
                toplist_id = text(pool["external_id"]) or ""
                row = (
                    toplist_id,
                    playlist_id,
                    text(playlist["platform"]) or "",
                    *texts_of(playlist, "name", "description", "cover_url"),
                    playlist["play_count"] or 0,
                    playlist["collected_song_count"] or 0,
                    text(pool["name"]),
                )
                found.setdefault((toplist_id, playlist_id), row)
    return list(found.values())


def in_order(found: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted(found, key=repr)


@given(catalogues)
@settings(max_examples=100, deadline=None)
def test_rows_are_those_of_the_naive_model(catalogue: Catalogue) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = export(create_catalogue(Path(folder, "catalogue.db"), catalogue, journal_mode="off"))
        for table, expected in {
            "catalog_playlists": expected_playlists,
            "catalog_tracks": expected_tracks,
            "catalog_playlist_tracks": expected_playlist_tracks,
            "catalog_track_files": expected_files,
            "catalog_toplists": expected_toplists,
        }.items():
            assert in_order(expected(catalogue)) == in_order(read(database, f"SELECT * FROM {table}")), table
