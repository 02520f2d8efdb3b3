"""The files of the read model: where each can be had, and nothing of where it lies on the NAS."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import SourceError
from publisher.export import export_snapshot
from tests.publisher import Tables, create_catalogue, exported, one_file

BASE = "https://media.example.com/audio"
FILE = "SELECT locator, public_url FROM catalog_track_files"
# By hand: the first 8 digits of `printf 3:5:99 | sha256sum`, and of `printf 3:5: | sha256sum`.
HANDLE = "loc:7.08819d35"
HANDLE_WITHOUT_SIZE = "loc:7.c4ecc67e"


@pytest.mark.parametrize("base", [BASE, f"{BASE}/", f"{BASE}///", f"  {BASE}/ "])
@pytest.mark.parametrize("locator", ["qq/a.flac", "/qq/a.flac", "//qq/a.flac"])
def test_one_slash_stands_between_base_and_locator(tmp_path: Path, base: str, locator: str) -> None:
    found = exported(tmp_path, one_file(locator, config={"public_base_url": base}), FILE)
    assert found == [(locator, "https://media.example.com/audio/qq/a.flac")]


@pytest.mark.parametrize(
    ("locator", "encoded"),
    [  # by hand: RFC 3986, section 2.1 for the form, 2.3 for what needs none, 3.3 for the slash
        ("中文/歌.flac", "%E4%B8%AD%E6%96%87/%E6%AD%8C.flac"),
        ("a b.mp3", "a%20b.mp3"),
        ("a#1?x=y&z.mp3", "a%231%3Fx%3Dy%26z.mp3"),
        ("100%.mp3", "100%25.mp3"),
        ("100%25.mp3", "100%2525.mp3"),
        ("a+b@c:d;e,f!g'h(i)*$.mp3", "a%2Bb%40c%3Ad%3Be%2Cf%21g%27h%28i%29%2A%24.mp3"),
        ('[a]|"<>\\^`{}', "%5Ba%5D%7C%22%3C%3E%5C%5E%60%7B%7D"),
        ("AZaz09-._~/x", "AZaz09-._~/x"),
        ("😀", "%F0%9F%98%80"),
        ("tab\tline\n\x7f", "tab%09line%0A%7F"),
    ],
)
def test_locator_is_percent_encoded_in_the_url(tmp_path: Path, locator: str, encoded: str) -> None:
    found = exported(tmp_path, one_file(locator, config={"public_base_url": BASE}), FILE)
    assert found == [(locator, f"{BASE}/{encoded}")]


def test_url_of_a_locator_that_is_not_utf8_names_the_stored_bytes(tmp_path: Path) -> None:
    """The object's key is those bytes; only the text beside it is repaired."""
    found = exported(tmp_path, one_file(b"a\xff/\xe4\xb8.mp3", config={"public_base_url": BASE}), FILE)
    assert found == [("a\ufffd/\ufffd.mp3", f"{BASE}/a%FF/%E4%B8.mp3")]


@pytest.mark.parametrize(
    "config",
    [
        *(None, "", "{}", "not JSON", "[]", "7", {"other": "x"}, '{"public_base_url": "\\ud800"}'),
        *({"public_base_url": base} for base in (None, "", "  ", 7)),
    ],
)
def test_without_a_public_base_url_the_locator_is_a_handle(tmp_path: Path, config: object) -> None:
    assert exported(tmp_path, one_file("secret/a.flac", config=config), FILE) == [(HANDLE, None)]


@pytest.mark.parametrize("backend_type", ["nas", "local", "Object_Storage", ""])
def test_only_object_storage_has_public_urls(tmp_path: Path, backend_type: str) -> None:
    tables = one_file("a.flac", config={"public_base_url": BASE}, backend_type=backend_type)
    assert exported(tmp_path, tables, FILE) == [(HANDLE, None)]


def test_handle_of_an_unknown_size_checks_the_empty_text(tmp_path: Path) -> None:
    assert exported(tmp_path, one_file("a", size=None), FILE) == [(HANDLE_WITHOUT_SIZE, None)]


@pytest.mark.parametrize(
    "change",
    [
        {"songs": [{"id": 4}], "file_assets": [{"id": 5, "song_id": 4, "file_size_bytes": 99}]},
        {"file_assets": [{"id": 5, "song_id": 3, "file_size_bytes": 98}]},
    ],
)
def test_reused_location_id_gets_another_check(tmp_path: Path, change: Tables) -> None:
    ((locator, _),) = exported(tmp_path, {**one_file("a"), **change}, FILE)
    assert locator.startswith("loc:7.")
    assert locator != HANDLE


@pytest.mark.parametrize(
    "url",
    [
        "https://user:word@cdn.example/a",
        "https://user@cdn.example",
        "//user:word@cdn.example/a",
        "user:word@cdn.example/a",
        "https:user:word@cdn.example",
        "https:/user:word@cdn.example",
        "https:\\\\user:word@cdn.example",
        "https:///user:word@cdn.example",
        " HTTPS://u%40:w@cdn.example",
    ],
)
def test_public_base_url_with_a_user_or_password_is_refused(tmp_path: Path, url: str) -> None:
    source = create_catalogue(tmp_path / "c.db", one_file("a", config={"public_base_url": url}))
    with pytest.raises(SourceError, match=r"'store'.*user name or a password") as caught:
        export_snapshot(source, tmp_path / "snapshot")
    assert "word@" not in str(caught.value)


def test_at_sign_in_the_path_of_a_base_url_is_no_user(tmp_path: Path) -> None:
    found = exported(tmp_path, one_file("a", config={"public_base_url": "https://cdn.example/@m"}), FILE)
    assert found == [("a", "https://cdn.example/@m/a")]


@pytest.mark.parametrize("location_id", [-5, -(1 << 63)])
def test_location_whose_id_no_handle_can_name_is_dropped(tmp_path: Path, location_id: int) -> None:
    """docs/format.md, "Handles": an id is from 0 on."""
    tables = one_file("a")
    tables["file_locations"] += [
        tables["file_locations"][0] | {"id": location_id},
        tables["file_locations"][0] | {"id": 0},
    ]
    assert exported(tmp_path, tables, "SELECT location_id FROM catalog_track_files") == [(0,), (7,)]


@pytest.mark.parametrize("status", ["missing", "deleted", "Active", "", None])
def test_only_active_locations_are_exported(tmp_path: Path, status: str | None) -> None:
    tables = one_file("a")
    tables["file_locations"][0]["status"] = status
    assert exported(tmp_path, tables, FILE) == []


def test_file_carries_its_asset_and_the_name_of_its_backend(tmp_path: Path) -> None:
    tables = one_file("a", config={"public_base_url": BASE})
    tables["file_assets"][0] |= {"quality_label": "lossless", "ext": "flac"}
    query = (
        "SELECT location_id, song_id, quality_label, ext, file_size_bytes, backend_type, backend_name,"
        " status, is_primary FROM catalog_track_files"
    )
    expected = [(7, 3, "lossless", "flac", 99, "object_storage", "store", "active", 0)]
    assert exported(tmp_path, tables, query) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"songs": []},
        {"file_assets": []},
        {"storage_backends": []},
        {"file_assets": [{"id": 5, "song_id": None}]},
    ],
)
def test_files_with_dangling_ids_are_dropped(tmp_path: Path, change: Tables) -> None:
    assert exported(tmp_path, {**one_file("a"), **change}, FILE) == []
