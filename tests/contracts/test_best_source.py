"""Which file of a track is played, by what link, and for how long."""

from __future__ import annotations

import random
import sqlite3
from typing import Any

import pytest

from contracts.best_source import (
    FILE_COLUMNS,
    PAUSE_S,
    STREAM_PATH,
    UNKNOWN_DURATION_S,
    best_source,
    choose_file,
    parse_duration,
)
from contracts.errors import MalformedToken
from contracts.read_model import INDEXES, TABLES
from contracts.tokens import OriginClaims, verify_origin_token

SECRET = "a secret of the tests, long enough"
NOW = 1_800_000_000


def row(location_id: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "location_id": location_id,
        "song_id": 1,
        "quality_label": "high",
        "ext": "mp3",
        "file_size_bytes": 1,
        "backend_type": "nas",
        "backend_name": "nas-1",
        "locator": f"loc:{location_id}.00000000",
        "public_url": None,
        "status": "active",
        "is_primary": 0,
    } | changes


def public(location_id: int = 1, **changes: Any) -> dict[str, Any]:
    return row(location_id, backend_type="object_storage", public_url=f"https://cdn/{location_id}", **changes)


def url_of(files: list[Any], metadata_json: str | None = None) -> str | None:
    return best_source(files, metadata_json, secret=SECRET, origin_url="https://nas.example/", now=NOW + 0.9)


def claims_of(url: str | None) -> OriginClaims:
    assert url is not None
    token = url.removeprefix("https://nas.example" + STREAM_PATH)
    return verify_origin_token(SECRET, token, NOW)


@pytest.mark.parametrize(
    ("rule", "files", "expected"),
    [
        ("active only", [row(1, status="missing", is_primary=1), row(2)], 2),
        ("a public URL or a handle", [row(1, locator="artist/a.mp3", is_primary=1), row(2)], 2),
        ("primary first", [row(1, quality_label="lossless"), row(2, is_primary=1)], 2),
        ("primary before public", [public(1), row(2, is_primary=1)], 2),
        ("better quality", [row(1), row(2, quality_label="lossless")], 2),
        ("quality before public", [public(1), row(2, quality_label="lossless")], 2),
        ("in this order", [row(n, quality_label=q) for n, q in enumerate(["low", "standard", "high"], 1)], 3),
        ("however it is written", [row(1, quality_label="Hi-Res"), row(2)], 1),
        ("unknown labels last", [row(1, quality_label="best ever"), row(2, quality_label="low")], 2),
        ("no label is unknown", [row(1, quality_label=None), row(2, quality_label="low")], 2),
        ("public before the NAS", [row(1), public(2)], 2),
        ("the lower id", [row(3), row(2), row(4)], 2),
    ],
)
def test_order(rule: str, files: list[dict[str, Any]], expected: int) -> None:
    """Whatever order the rows come in."""
    for seed in range(5):
        shuffled = random.Random(seed).sample(files, len(files))
        chosen = choose_file(shuffled)
        assert chosen is not None and expected == chosen.location_id, rule


def test_nothing_to_play() -> None:
    assert url_of([]) is None
    assert url_of([row(status="missing"), row(locator="../a"), row(locator="loc:x")]) is None


def test_public_url_is_returned_as_it_is() -> None:
    assert url_of([public(7)]) == "https://cdn/7"


@pytest.mark.parametrize(
    ("metadata_json", "duration_s"),
    [
        ('{"duration": 215}', 215),
        ('{"duration": 214.2}', 215),
        ('{"duration": "214.2"}', 215),
        ('{"duration_s": 10, "duration": 215}', 10),
        ('{"duration_s": null, "duration": 215}', 215),
        # Milliseconds, as some platforms write them: unknown is better than three days.
        ('{"duration": 215000}', 0),
        ('{"duration": -1}', 0),
        ('{"duration": true}', 0),
        ('{"duration": "NaN"}', 0),
        ('{"duration": "1e999"}', 0),
        ('{"duration": NaN}', 0),
        ('{"duration": []}', 0),
        ("[215]", 0),
        ("215", 0),
        ("no JSON", 0),
        ("[" * 100_000, 0),
        ("", 0),
        (None, 0),
    ],
)
def test_link_lives_as_long_as_the_track_and_a_pause(metadata_json: str | None, duration_s: int) -> None:
    assert duration_s == parse_duration(metadata_json)
    claims = claims_of(url_of([row(5)], metadata_json))
    life_s = (duration_s or UNKNOWN_DURATION_S) + PAUSE_S
    assert ("loc:5.00000000", NOW + life_s, duration_s) == (
        claims.locator,
        claims.expires_at,
        claims.duration_s,
    )


def test_rows_of_a_query_are_accepted_as_they_come() -> None:
    """Tuples of `SELECT *` and `sqlite3.Row`s, from a database with the read model's own schema."""
    connection = sqlite3.connect(":memory:")
    for statement in (*TABLES.values(), *INDEXES.values()):
        connection.execute(statement)
    values = row(9)
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO catalog_track_files VALUES ({marks})", tuple(values.values()))
    query = "SELECT * FROM catalog_track_files"
    assert tuple(column[0] for column in connection.execute(query).description) == FILE_COLUMNS
    assert claims_of(url_of(list(connection.execute(query)))).locator == "loc:9.00000000"
    connection.row_factory = sqlite3.Row
    assert claims_of(url_of(list(connection.execute(query)))).locator == "loc:9.00000000"
    connection.close()


def test_row_without_all_columns_is_an_error() -> None:
    with pytest.raises(ValueError):
        choose_file([(1, 2)])
    with pytest.raises(KeyError):
        choose_file([{"location_id": 1}])


def test_file_name_goes_into_the_link() -> None:
    url = best_source(
        [row()], None, secret=SECRET, origin_url="https://nas.example", now=NOW, file_name="歌.mp3"
    )
    assert claims_of(url).file_name == "歌.mp3"
    with pytest.raises(MalformedToken):
        best_source([row()], None, secret=SECRET, origin_url="x", now=NOW, file_name="a/b")
