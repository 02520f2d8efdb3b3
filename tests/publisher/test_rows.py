"""The rows of the read model: every trap of the design's section 4 but those of files, one test each."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.publisher import OPTIONAL_TABLES, Tables, create_catalogue, export, exported, one_file, read

BASE = "https://media.example.com/audio"
TOPLIST = {"platform": "qq", "pool_kind": "toplist"}
COUNTS = (
    "SELECT (SELECT count(*) FROM catalog_playlists), (SELECT count(*) FROM catalog_tracks),"
    " (SELECT count(*) FROM catalog_playlist_tracks), (SELECT count(*) FROM catalog_track_files),"
    " (SELECT count(*) FROM catalog_toplists)"
)


# Toplists


def test_both_playlists_of_a_pool_are_exported(tmp_path: Path) -> None:
    tables: Tables = {
        "playlists": [{"id": 1, "platform": "qq"}, {"id": 2, "platform": "qq"}],
        "playlist_pools": [{"id": 1, "external_id": "26", "name": "Hot", **TOPLIST}],
        "pool_playlists": [{"pool_id": 1, "playlist_id": 2}, {"pool_id": 1, "playlist_id": 1}],
    }
    found = exported(tmp_path, tables, "SELECT toplist_id, playlist_id, group_name FROM catalog_toplists")
    assert found == [("26", 1, "Hot"), ("26", 2, "Hot")]


def test_of_two_pools_with_one_external_id_the_lowest_wins(tmp_path: Path) -> None:
    tables: Tables = {
        "playlists": [{"id": 1, "platform": "qq"}],
        "playlist_pools": [
            {"id": 9, "external_id": "26", "name": "Old", **TOPLIST},
            {"id": 4, "external_id": "26", "name": "New", **TOPLIST},
        ],
        "pool_playlists": [{"pool_id": 9, "playlist_id": 1}, {"pool_id": 4, "playlist_id": 1}],
    }
    assert exported(tmp_path, tables, "SELECT group_name FROM catalog_toplists") == [("New",)]


@pytest.mark.parametrize(("first", "second"), [(None, ""), (b"\xff", b"\xfe"), (b"a\x80", b"a\xff")])
def test_external_ids_that_become_equal_are_one_toplist(tmp_path: Path, first: Any, second: Any) -> None:
    """NULL and the empty text, or two invalid texts, are the same once they are public."""
    tables: Tables = {
        "playlists": [{"id": 1, "platform": "qq"}],
        "playlist_pools": [
            {"id": 1, "external_id": first, "name": "First", **TOPLIST},
            {"id": 2, "external_id": second, "name": "Second", **TOPLIST},
        ],
        "pool_playlists": [{"pool_id": 1, "playlist_id": 1}, {"pool_id": 2, "playlist_id": 1}],
    }
    assert exported(tmp_path, tables, "SELECT group_name FROM catalog_toplists") == [("First",)]


def test_a_playlist_that_is_twice_in_a_pool_is_one_row(tmp_path: Path) -> None:
    tables: Tables = {
        "playlists": [{"id": 1}],
        "playlist_pools": [{"id": 1, "external_id": "26", **TOPLIST}],
        "pool_playlists": [{"pool_id": 1, "playlist_id": 1}] * 2,
    }
    found = exported(tmp_path, tables, "SELECT platform, toplist_id, playlist_id FROM catalog_toplists")
    assert found == [("", "26", 1)]


def test_toplist_takes_all_but_its_id_and_group_from_the_playlist(tmp_path: Path) -> None:
    tables: Tables = {
        "playlists": [
            {
                "id": 1,
                "platform": "netease",
                "name": "热歌榜",
                "description": "每周更新",
                "cover_url": "c",
                "play_count": 8,
                "collected_song_count": 3,
            }
        ],
        "playlist_pools": [{"id": 1, "external_id": "26", "name": "Group", **TOPLIST}],
        "pool_playlists": [{"pool_id": 1, "playlist_id": 1}],
    }
    query = (
        "SELECT toplist_id, platform, name, description, cover_url, play_count, song_count, group_name"
        " FROM catalog_toplists"
    )
    assert exported(tmp_path, tables, query) == [("26", "netease", "热歌榜", "每周更新", "c", 8, 3, "Group")]


def test_pools_of_other_kinds_are_no_toplists(tmp_path: Path) -> None:
    tables: Tables = {
        "playlists": [{"id": 1}],
        "playlist_pools": [{"id": 1, "external_id": "26", "pool_kind": "category"}, {"id": 2}],
        "pool_playlists": [{"pool_id": 1, "playlist_id": 1}, {"pool_id": 2, "playlist_id": 1}],
    }
    assert exported(tmp_path, tables, "SELECT * FROM catalog_toplists") == []


# Tables that an older catalogue lacks

WHOLE: Tables = {
    **one_file("a.flac", config={"public_base_url": BASE}),
    "playlists": [{"id": 1}],
    "playlist_songs": [{"playlist_id": 1, "song_id": 3, "position": 1}],
    "playlist_pools": [{"id": 1, "external_id": "26", **TOPLIST}],
    "pool_playlists": [{"pool_id": 1, "playlist_id": 1}],
}


@pytest.mark.parametrize("missing", [(), *((table,) for table in OPTIONAL_TABLES), OPTIONAL_TABLES])
def test_part_that_needs_a_missing_table_is_empty(tmp_path: Path, missing: tuple[str, ...]) -> None:
    found = exported(tmp_path, WHOLE, COUNTS, without=missing)
    files = not {"file_assets", "file_locations", "storage_backends"} & set(missing)
    toplists = not {"playlist_pools", "pool_playlists"} & set(missing)
    assert found == [(1, 1, 1, int(files), int(toplists))]


def test_columns_that_newer_catalogues_add_are_ignored(tmp_path: Path) -> None:
    """Above all those whose names another table of the same query has."""
    source = create_catalogue(tmp_path / "c.db", WHOLE)
    added = {
        "file_locations": ("song_id", "ext", "quality_label", "file_size_bytes", "bits", "type", "base_url"),
        "file_assets": ("locator", "status", "is_primary", "backend_id", "file_asset_id", "block", "name"),
        "playlist_pools": ("play_count", "collected_song_count", "playlist_id", "description", "cover_url"),
        "pool_playlists": ("id", "platform", "pool_kind", "external_id", "name"),
        "playlists": ("external_id", "pool_kind", "pool_id"),
        "playlist_songs": ("id", "bits", "block"),
    }
    with closing(sqlite3.connect(source)) as connection:
        for table, columns in added.items():
            for column in columns:
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
    assert read(export(source), COUNTS) == [(1, 1, 1, 1, 1)]


# Playlists and their tracks


def entries(*rows: tuple[int, int, int | None]) -> list[dict[str, Any]]:
    return [{"playlist_id": row[0], "song_id": row[1], "position": row[2]} for row in rows]


ORDINALS = "SELECT playlist_id, ordinal, song_id, position FROM catalog_playlist_tracks"


def test_ordinals_count_from_one_whatever_the_positions_are(tmp_path: Path) -> None:
    """By (position IS NULL, position, song_id): duplicates by song, gaps closed, NULL last."""
    tables: Tables = {
        "playlists": [{"id": 1}, {"id": 2}],
        "songs": [{"id": 1}, {"id": 2}, {"id": 3}],
        "playlist_songs": entries(
            (1, 3, None), (1, 2, 5), (1, 3, 2), (1, 1, 2), (1, 1, None), (1, 1, 2), (2, 2, -4), (2, 1, 0)
        ),
    }
    assert exported(tmp_path, tables, ORDINALS) == [
        (1, 1, 1, 2),
        (1, 2, 1, 2),
        (1, 3, 3, 2),
        (1, 4, 2, 5),
        (1, 5, 1, None),
        (1, 6, 3, None),
        (2, 1, 2, -4),
        (2, 2, 1, 0),
    ]


def test_dangling_ids_are_dropped_before_ordinals_are_given(tmp_path: Path) -> None:
    tables: Tables = {
        "playlists": [{"id": 1}],
        "songs": [{"id": 1}, {"id": 64}],
        "playlist_songs": [
            *entries((1, 2, 1), (1, 64, 2), (9, 1, 1), (1, 65, 3), (1, 33, 3), (1, 1, 4)),
            {"playlist_id": 1},
            {"song_id": 1},
        ],
    }
    assert exported(tmp_path, tables, ORDINALS) == [(1, 1, 64, 2), (1, 2, 1, 4)]


@pytest.mark.parametrize("song_id", [0, -1, -32, 31, 32, 2**31, 2**62, -(2**62), 2**63 - 1])
def test_song_ids_of_any_size_are_found(tmp_path: Path, song_id: int) -> None:
    tables: Tables = {
        "playlists": [{"id": 1}],
        "songs": [{"id": song_id}],
        "playlist_songs": entries((1, song_id, 1), (1, song_id ^ 1, 2), (1, song_id ^ 32, 3)),
    }
    assert exported(tmp_path, tables, ORDINALS) == [(1, 1, song_id, 1)]


def test_song_id_that_is_no_integer_is_dangling(tmp_path: Path) -> None:
    tables: Tables = {
        "playlists": [{"id": 1}],
        "songs": [{"id": 5}],
        "playlist_songs": [{"playlist_id": 1, "song_id": song_id} for song_id in ("5x", 5.5, "", "x")],
    }
    assert exported(tmp_path, tables, ORDINALS) == []


@pytest.mark.parametrize("change", [{"playlists": []}, {"playlist_pools": []}])
def test_toplists_with_dangling_ids_are_dropped(tmp_path: Path, change: Tables) -> None:
    assert exported(tmp_path, {**WHOLE, **change}, "SELECT * FROM catalog_toplists") == []


def test_null_counts_become_zero(tmp_path: Path) -> None:
    query = "SELECT play_count, song_count FROM catalog_playlists"
    assert exported(tmp_path, {"playlists": [{"id": 1}]}, query) == [(0, 0)]


# Text


@pytest.mark.parametrize(
    ("stored", "repaired"),
    [  # one U+FFFD for each maximal part of a sequence: The Unicode Standard, section 3.9
        (b"a\xffb", "a\ufffdb"),
        (b"\xe4\xb8", "\ufffd"),
        (b"\xc0\xaf", "\ufffd\ufffd"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
        (b"ok \xe4\xb8\xad", "ok 中"),
    ],
)
def test_invalid_utf8_becomes_the_replacement_character_in_every_column(
    tmp_path: Path, stored: bytes, repaired: str
) -> None:
    playlist = dict.fromkeys(("platform", "remote_playlist_id", "name", "description", "cover_url"), stored)
    song = dict.fromkeys(("platform", "remote_song_id", "name", "singers", "ext"), stored)
    tables = one_file(stored, config={"public_base_url": BASE})
    tables["file_assets"][0] |= {"quality_label": stored, "ext": stored}
    tables["storage_backends"][0]["name"] = stored
    tables["songs"] = [{"id": 1}, {"id": 3, **song}]
    tables["playlists"] = [{"id": 1, **playlist}]
    tables["playlist_pools"] = [{"id": 1, **TOPLIST, "external_id": stored, "name": stored}]
    tables["pool_playlists"] = [{"pool_id": 1, "playlist_id": 1}]
    database = export(create_catalogue(tmp_path / "c.db", tables))
    for table, columns in {
        "catalog_playlists": "platform, remote_playlist_id, name, description, cover_url",
        "catalog_tracks WHERE song_id = 3": "platform, remote_song_id, name, singers, ext",
        "catalog_track_files": "quality_label, ext, backend_name, locator",
        "catalog_toplists": "toplist_id, platform, name, description, cover_url, group_name",
    }.items():
        (row,) = read(database, f"SELECT {columns} FROM {table}")
        assert row == (repaired,) * len(row)


def test_invalid_text_is_found_at_the_end_of_many_rows(tmp_path: Path) -> None:
    """Text is checked some thousand rows at a time; the last must not escape."""
    tables: Tables = {
        "songs": [{"id": n, "name": "好"} for n in range(1, 5000)] + [{"id": 5000, "name": b"\xe5\xa5"}]
    }
    found = exported(tmp_path, tables, "SELECT name FROM catalog_tracks WHERE song_id >= 4999")
    assert found == [("好",), ("\ufffd",)]


def test_halves_of_a_sequence_in_neighbouring_values_are_both_invalid(tmp_path: Path) -> None:
    """`E5 A5` and `BD` are 好 only when something joins them."""
    tables: Tables = {
        "songs": [
            {"id": 1, "name": b"\xe5\xa5", "singers": b"\xbd"},
            {"id": 2, "name": b"\xbd", "singers": b"\xe5\xa5"},
        ]
    }
    found = exported(tmp_path, tables, "SELECT name, singers FROM catalog_tracks")
    assert found == [("\ufffd", "\ufffd"), ("\ufffd", "\ufffd")]


def test_text_with_a_nul_is_copied_whole(tmp_path: Path) -> None:
    tables = {"songs": [{"id": 1, "name": "a\0b"}]}
    assert exported(tmp_path, tables, "SELECT name FROM catalog_tracks") == [("a\0b",)]


# Metadata


@pytest.mark.parametrize(
    ("stored", "public"),
    [
        (None, None),
        ("not JSON", None),
        (b'{"a": "\xff"}', None),
        ('{"album": "七里香"}', '{"album": "七里香"}'),
        ('{"album": "x", "n": [{"cookie": "MARKER"}]}', '{"album":"x","n":[{}]}'),
        ('{"album": "x", "f": "/volume1/music/a.flac"}', '{"album":"x"}'),
    ],
)
def test_metadata_is_published_without_secrets_and_places(
    tmp_path: Path, stored: str | bytes | None, public: str | None
) -> None:
    tables = {**one_file("a"), "songs": [{"id": 3, "metadata_json": stored}]}
    found = exported(tmp_path, tables, "SELECT metadata_json, typeof(metadata_json) FROM catalog_tracks")
    assert found == [(public, "null" if public is None else "text")]


def test_allow_list_narrows_metadata(tmp_path: Path) -> None:
    source = create_catalogue(
        tmp_path / "c.db", {"songs": [{"id": 1, "metadata_json": '{"album": "x", "genre": "y"}'}]}
    )
    database = export(source, metadata_keys=["album"])
    assert read(database, "SELECT metadata_json FROM catalog_tracks") == [('{"album":"x"}',)]
