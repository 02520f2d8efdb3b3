"""A refresh that knows the settings trusts what they decided, and not a row more."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from publisher import backends
from publisher.backends import Backend, Backends, fingerprint_settings
from publisher.differences import TableChanges
from publisher.export import build_database
from publisher.known import Known
from publisher.refresh import refresh_database
from tests.publisher import Tables, create_catalogue, one_file, read
from tests.publisher.test_refresh import change
from tests.publisher.test_refresh_property import differences

BASE = {"public_base_url": "https://media.example.com"}


def exported(folder: Path, tables: Tables) -> tuple[Path, Path, Known]:
    """A catalogue, its export, and the settings as a first refresh found them."""
    source, database = create_catalogue(folder / "c.db", tables), folder / "read.db"
    build_database(source, database)
    result = refresh_database(source, database)
    assert not result.is_changed
    return source, database, result.known


def assert_fresh(source: Path, database: Path, **options: Any) -> None:
    fresh = database.with_name("fresh.db")
    fresh.unlink(missing_ok=True)
    build_database(source, fresh, **options)
    assert differences(fresh, database) == []


@pytest.mark.parametrize(
    "statements",
    [
        ["UPDATE storage_backends SET base_path = '/volume9'"],
        ["UPDATE storage_backends SET base_path = NULL"],
        ["INSERT INTO storage_backends(id, base_path) VALUES (9, '/volume9/x')"],
        ["UPDATE storage_backends SET config_json = replace(config_json, 'media', 'cdn')"],
        ["""UPDATE storage_backends SET config_json = '{"inbox_path": "/volume9/x"}'"""],
        ["UPDATE storage_backends SET config_json = NULL"],
        ["UPDATE storage_backends SET backend_type = 'nas'"],
        ["UPDATE storage_backends SET name = 'other'"],
        ["UPDATE storage_backends SET name = 'store', backend_type = 'object_storage'"],
        [  # the same names, another base URL, and the location moves from one to the other
            "INSERT INTO storage_backends SELECT 9, name, backend_type, NULL,"
            """ '{"public_base_url": "https://cdn.example.com"}' FROM storage_backends WHERE id = 2""",
            "UPDATE file_locations SET backend_id = 9",
        ],
        ["DELETE FROM storage_backends"],
    ],
)
def test_changed_settings_reach_every_row(tmp_path: Path, statements: list[str]) -> None:
    tables = one_file("a b.flac", config=BASE)
    tables["songs"][0]["metadata_json"] = '{"a": "/volume9/x", "b": "/volume1/music/y"}'
    tables["songs"].append({"id": 4, "metadata_json": '{"a": "/volume9/x"}'})
    source, database, known = exported(tmp_path, tables)
    change(source, *statements)
    refresh_database(source, database, known=known)
    assert_fresh(source, database)


@pytest.mark.parametrize(
    ("before", "after"), [(None, ["b"]), (["b"], None), (["a"], ["b"]), ([], ["a", "b"])]
)
def test_other_metadata_keys_reach_every_row(
    tmp_path: Path, before: list[str] | None, after: list[str] | None
) -> None:
    tables = {
        "songs": [{"id": 1, "metadata_json": '{"a": 1, "b": 2}'}, {"id": 2, "metadata_json": '{"a": 1}'}]
    }
    source, database, _ = exported(tmp_path, tables)
    known = refresh_database(source, database, metadata_keys=before).known
    refresh_database(source, database, metadata_keys=after, known=known)
    assert_fresh(source, database, metadata_keys=after)


def test_locators_that_are_alike_once_repaired_have_their_own_urls(tmp_path: Path) -> None:
    """The URL names the stored bytes, of which the locator beside it may show U+FFFD."""
    source, database, known = exported(tmp_path, one_file(b"a\xff", config=BASE))
    change(source, "UPDATE file_locations SET locator = 'a' || char(65533)")
    result = refresh_database(source, database, known=known)
    assert result.tables["catalog_track_files"] == TableChanges(updated=1)
    assert_fresh(source, database)


def test_location_between_two_backends_of_one_name_gets_the_url_of_its_own(tmp_path: Path) -> None:
    """Type and name are all that the earlier export tells of a backend."""
    tables = one_file("a", config=BASE)
    tables["storage_backends"].append(
        tables["storage_backends"][0]
        | {"id": 3, "config_json": json.dumps({"public_base_url": "https://cdn.example.com"})}
    )
    source, database, known = exported(tmp_path, tables)
    assert known.settings is None
    change(source, "UPDATE file_locations SET backend_id = 3")
    refresh_database(source, database, known=known)
    assert read(database, "SELECT public_url FROM catalog_track_files") == [("https://cdn.example.com/a",)]


@pytest.mark.parametrize("given", ["", "other"])
def test_settings_of_another_time_are_not_trusted(tmp_path: Path, given: str) -> None:
    tables = {"songs": [{"id": 1, "metadata_json": '{"a": "/volume9/x"}'}]}
    source, database, _ = exported(tmp_path, tables)
    change(source, "INSERT INTO storage_backends(id, base_path) VALUES (9, '/volume9')")
    refresh_database(source, database, known=Known(given))
    assert read(database, "SELECT metadata_json FROM catalog_tracks") == [("{}",)]


def test_order_and_number_of_backends_and_keys_are_no_settings() -> None:
    """What decides nothing must not cost a look at every row."""
    first = Backend(1, "object_storage", "a", "https://a.example/")
    second, third = Backend(2, "nas", None, None), Backend(3, "nas", None, None)
    places = {b"/b": "of one", b"/a": "of another"}
    expected = fingerprint_settings(Backends([first, second], places), ["x", "y"])
    assert expected is not None
    assert expected == fingerprint_settings(
        Backends([third, second, first], dict.fromkeys(sorted(places), "of one")), {"y", "x"}
    )
    assert expected != fingerprint_settings(Backends([first, second], places), None)
    assert expected != fingerprint_settings(Backends([first, second], {b"/b": "of one"}), ["x", "y"])
    assert expected != fingerprint_settings(Backends([first], places), ["x", "y"])


@pytest.mark.parametrize(
    "rule",
    ["publisher.metadata", "publisher.places", "publisher.rows", "contracts.handles", "contracts.read_model"],
)
def test_other_rules_are_other_settings(rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier version has made of a row says nothing of what this one makes of it."""
    source = Path(sys.modules[rule].__file__ or "")
    changed = tmp_path / "changed.py"
    changed.write_bytes(source.read_bytes() + b"\n")
    before = fingerprint_settings(Backends([], {}), None)
    assert source in backends._RULES
    rules = tuple(changed if path == source else path for path in backends._RULES)
    monkeypatch.setattr(backends, "_RULES", rules)
    assert None not in (before, fingerprint_settings(Backends([], {}), None))
    assert before != fingerprint_settings(Backends([], {}), None)
