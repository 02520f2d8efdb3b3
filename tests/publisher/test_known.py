"""What a refresh remembers makes the next one faster, and never another."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from music_cloud.sample import evolve
from publisher import PublishOptions, publish
from publisher.known import NOTHING_KNOWN, Known
from publisher.refresh import refresh_database
from publisher.state import State
from stores import MemoryStore
from tests.publisher import Tables, create_catalogue, one_file, read
from tests.publisher.test_refresh import change
from tests.publisher.test_refresh_settings import assert_fresh, exported

SMALL = PublishOptions(segment_bytes=64 << 10, level=1)


def remembered(known: Known) -> list[tuple[int, int]]:
    """The location and the asset of each handle."""
    assert known.assets is not None
    with closing(sqlite3.connect(known.assets)) as connection:
        return connection.execute("SELECT location_id, asset_id FROM assets ORDER BY 1").fetchall()


def two_assets() -> Tables:
    """One location, and two assets of its song that differ in nothing but their id."""
    tables = one_file("a")
    (asset,) = tables["file_assets"]
    return {**tables, "file_assets": [{**asset, "id": 5}, {**asset, "id": 6}]}


MOVE = "UPDATE file_locations SET file_asset_id = {}"


@pytest.mark.parametrize(
    "steps",
    [
        [MOVE.format(6)],
        [MOVE.format(6), MOVE.format(5), MOVE.format(6)],
        # The location's id is used again meanwhile, or its row was not public for a while.
        ["DELETE FROM file_locations", f"INSERT INTO file_locations SELECT * FROM kept; {MOVE.format(6)}"],
        [
            "UPDATE file_locations SET status = 'missing'",
            MOVE.format(6),
            "UPDATE file_locations SET status = 'active'",
        ],
    ],
    ids=["moved", "to and fro", "another", "hidden"],
)
def test_handle_follows_the_asset_of_a_location(tmp_path: Path, steps: Sequence[str]) -> None:
    """Between assets with one song and one size: nothing else in the export tells them apart."""
    source = create_catalogue(tmp_path / "c.db", two_assets())
    change(
        source,
        "UPDATE file_locations SET file_asset_id = 5",
        "CREATE TABLE kept AS SELECT * FROM file_locations",
    )
    source.unlink()
    source, database, known = exported(tmp_path, two_assets())
    change(source, MOVE.format(5), "CREATE TABLE kept AS SELECT * FROM file_locations")
    for step in ("", *steps):
        change(source, *filter(None, step.split(";")))
        known = refresh_database(source, database, known=known).known
        assert_fresh(source, database)
    (location,) = read(source, "SELECT id, file_asset_id FROM file_locations")
    assert location in remembered(known)


def test_size_that_is_no_number_is_not_remembered(tmp_path: Path) -> None:
    """A handle is made of the text; as a number the export shows 0, which the size may become."""
    source, database, known = exported(tmp_path, one_file("a"))
    for size in ("'large'", "0", "NULL", "'0 bytes'", "12"):
        change(source, f"UPDATE file_assets SET file_size_bytes = {size}")
        known = refresh_database(source, database, known=known).known
        assert_fresh(source, database)
        assert bool(remembered(known)) == (size in ("0", "NULL", "12"))


def test_nothing_is_remembered_of_columns_that_keep_another_spelling(tmp_path: Path) -> None:
    """In a column without affinity 12 and '12' are different values, and make different handles."""
    source, database, _ = exported(tmp_path, one_file("a"))
    with closing(sqlite3.connect(source, isolation_level=None)) as connection:
        connection.execute(
            "CREATE TABLE other(id INTEGER PRIMARY KEY, song_id, quality_label, ext, file_size_bytes)"
        )
        connection.execute("INSERT INTO other SELECT * FROM file_assets")
        connection.execute("DROP TABLE file_assets")
        connection.execute("ALTER TABLE other RENAME TO file_assets")
    known = refresh_database(source, database).known
    assert known.assets is None
    for size in ("12", "'12'", "12.0"):
        change(source, f"UPDATE file_assets SET file_size_bytes = {size}")
        known = refresh_database(source, database, known=known).known
        assert_fresh(source, database)


def test_refresh_that_changes_nothing_writes_nothing_anew(tmp_path: Path) -> None:
    source, database, known = exported(tmp_path, one_file("a"))
    assert known.assets is not None
    before = known.assets.stat()
    assert known == refresh_database(source, database, known=known).known
    assert (before.st_ino, before.st_mtime_ns) == (
        known.assets.stat().st_ino,
        known.assets.stat().st_mtime_ns,
    )


def test_file_whose_song_is_missing_has_nothing_written_anew(tmp_path: Path) -> None:
    """It is no row of the export, and so looked at by every refresh."""
    tables = one_file("a")
    tables["file_assets"].append({"id": 6, "song_id": 404, "file_size_bytes": 1})
    tables["file_locations"].append(tables["file_locations"][0] | {"id": 8, "file_asset_id": 6})
    source, database, known = exported(tmp_path, tables)
    assert known.assets is not None
    before = known.assets.stat()
    assert known == refresh_database(source, database, known=known).known
    after = known.assets.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert remembered(known) == [(7, 5), (8, 6)]
    change(source, MOVE.format(5))
    assert remembered(refresh_database(source, database, known=known).known) == [(7, 5), (8, 5)]
    assert_fresh(source, database)


@pytest.mark.parametrize("harm", ["lost", "cut short", "damaged", "of another database"])
def test_what_is_remembered_wrongly_is_not_believed(tmp_path: Path, catalogue: Path, harm: str) -> None:
    """It is as if nothing were known: the next publish is slower, and the same."""
    store, state = MemoryStore(), State(tmp_path / "state")
    publish(catalogue, store, state.folder, SMALL)
    for seed in (1, 2):
        evolve(catalogue, churn="hour", seed=seed)
        manifest = publish(catalogue, store, state.folder, SMALL).manifest
    known = state.load_known(manifest.database)
    assert known.assets is not None
    content = known.assets.read_bytes()
    if harm == "lost":
        known.assets.unlink()
    elif harm == "cut short":
        known.assets.write_bytes(content[:-4096])
    elif harm == "damaged":
        known.assets.write_bytes(bytes(4096) + content[4096:])
    else:
        evolve(catalogue, churn="hour", seed=3)
        assert state.load_known(manifest.keyframe.database) == NOTHING_KNOWN
    assert state.load_known(manifest.database).assets == (
        known.assets if harm == "of another database" else None
    )
    evolve(catalogue, churn="hour", seed=4)
    manifest = publish(catalogue, store, state.folder, SMALL).manifest
    assert_fresh(catalogue, state.database_path(manifest.database))
    assert state.load_known(manifest.database).assets is not None
