"""Places on the NAS: which there are, how they may be spelt, and where they are found."""

from __future__ import annotations

import json
import sqlite3
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest

from contracts.errors import MalformedError, SourceError
from publisher.export import build_database
from publisher.places import spellings
from publisher.proof.places import find_places, load_places, verify_no_places


@pytest.mark.parametrize(
    ("path", "spelt"),
    [
        ("/volume1/music", "/volume1/music"),
        ("/volume1/music/", "/volume1/music"),
        ("/volume1/音乐", "/volume1/音乐"),
        ("/volume1/音乐", "\\/volume1\\/音乐"),  # PHP's json_encode escapes the slash
        ("/volume1/音乐", "/volume1/\\u97f3\\u4e50"),  # Python's json.dumps
        ("/volume1/音乐", "\\/volume1\\/\\u97F3\\u4E50"),
        ("/volume1/音乐", "/volume1/%E9%9F%B3%E4%B9%90"),  # RFC 3986
        ("/volume1/my music", "/volume1/my%20music"),
        ("D:\\音乐\\库", "D:\\音乐\\库"),
        ("D:\\音乐\\库", "D:\\\\音乐\\\\库"),  # as JSON
        ("D:\\音乐\\库", "D:/音乐/库"),
        ("D:\\音乐\\库\\", "D:\\/\\u97f3\\u4e50\\/\\u5e93"),
        ("\\\\nas\\music", "//nas/music"),  # a share, as file:////nas/music
    ],
)
def test_path_is_looked_for_in_this_spelling(path: str, spelt: str) -> None:
    assert spelt.encode() in spellings(path.encode())


@pytest.mark.parametrize(
    "path", ["", "/", "//", "\\", "D:", "D:\\", "D:/", ".", "./", "..", "../..", "m", "2024", "音乐/"]
)
def test_path_that_says_nothing_is_not_looked_for(path: str) -> None:
    assert spellings(path.encode()) == set()


def test_path_that_is_not_utf8_is_looked_for_as_it_is() -> None:
    path = "/volume1/音乐".encode("gb18030")
    assert spellings(path + b"/") == {path}


def _catalogue(folder: Path, *backends: tuple[str, object, object]) -> Path:
    path = folder / "目录.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE storage_backends(id, name, backend_type, base_path, config_json)")
        connection.executemany("INSERT INTO storage_backends VALUES (1, ?, 'nas', ?, ?)", backends)
    return path


def test_places_are_named_by_their_backend(tmp_path: Path) -> None:
    source = _catalogue(tmp_path, ("nas-1", "/volume1/音乐", None), ("老盘", "/volume2/旧", "{}"))
    places = load_places(source)
    assert places["/volume1/音乐".encode()] == "the base path of storage backend 'nas-1'"
    assert places["/volume2/旧".encode()] == "the base path of storage backend '老盘'"


def test_paths_of_a_configuration_are_places_but_urls_and_routes_are_not(tmp_path: Path) -> None:
    config = {
        "public_base_url": "https://cdn.example/volume9/",
        "inbox_path": "/volume3/收件箱",
        "mounts": [{"root": "E:\\旧\\库"}],
        "dav_path": "/dav",
        "bucket": "/volume4/not-a-place-key",
    }
    places = load_places(_catalogue(tmp_path, ("nas-1", None, json.dumps(config))))
    assert {"/volume3/收件箱".encode(), "E:\\旧\\库".encode()} <= places.keys()
    assert not [place for place in places if b"dav" in place or b"volume9" in place or b"volume4" in place]


@pytest.mark.parametrize("config", [b"not json", b"\xff\xfe", b"[" * 100_000, b"[]", b'"/volume1/x"'])
def test_configuration_that_makes_no_sense_is_no_error(tmp_path: Path, config: bytes) -> None:
    assert load_places(_catalogue(tmp_path, ("nas-1", None, config))) == {}


def test_older_catalogue_without_backends_names_no_places(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE songs(id)")
    assert load_places(path) == {}


def test_catalogue_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "garbage.db").write_bytes(b"garbage" * 1000)
    for name in ("garbage.db", "missing.db"):
        with pytest.raises(SourceError):
            load_places(tmp_path / name)


def test_place_within_another_is_looked_for_once(tmp_path: Path) -> None:
    source = _catalogue(tmp_path, ("nas-1", "/volume1/music", None), ("nas-2", "/volume1/music/new", None))
    assert set(load_places(source)) == {b"/volume1/music", b"\\/volume1\\/music"}


def test_place_too_short_to_be_looked_for_between_rows_hides_no_longer_one(tmp_path: Path) -> None:
    source = _catalogue(tmp_path, ("usb", "/v", None), ("nas-1", "/volume1/music", None))
    assert {b"/v", b"/volume1/music"} <= load_places(source).keys()


@pytest.mark.parametrize("at", [0, (1 << 20) - 5, (1 << 20) - 1, 1 << 20, (2 << 20) - 3, (3 << 20) - 16])
def test_place_is_found_wherever_a_piece_ends(tmp_path: Path, at: int) -> None:
    place = "/volume1/音乐/库".encode()[:16]
    content = bytearray(3 << 20)
    content[at : at + len(place)] = place
    path = tmp_path / "database"
    path.write_bytes(content)
    read: list[int] = []
    assert find_places(path, [place, b"/volume2", b"\\/volume1"], read.append) == {place}
    assert sum(read) == len(content)


def _no_room() -> AbstractContextManager[Path]:
    raise AssertionError("nothing to look at more closely")


def test_export_of_the_sample_names_no_place(catalogue: Path, tmp_path: Path) -> None:
    database = tmp_path / "catalog_read.db"
    build_database(catalogue, database)
    places = load_places(catalogue)
    assert places
    verify_no_places(database, places, _no_room)
    with closing(sqlite3.connect(database)) as connection, connection:
        (track,) = connection.execute("SELECT min(song_id) FROM catalog_tracks").fetchone()
        connection.execute(
            "UPDATE catalog_tracks SET metadata_json = ? WHERE song_id = ?",
            (b'{"a":"' + min(places) + b'"}', track),
        )
    with pytest.raises(MalformedError, match=rf"metadata_json of song_id {track} "):
        verify_no_places(database, places, _no_room)
