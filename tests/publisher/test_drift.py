"""When a refreshed database should be made anew: design, section 5, "Refresh"."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from publisher.drift import Measure, is_rebuild_due, measure_database
from publisher.export import build_database


def _measure(size_bytes: int, rows: int = 1000, free_pages: int = 0) -> Measure:
    return Measure(size_bytes, rows, size_bytes // 4096, free_pages)


def test_a_database_is_measured_in_all_of_its_tables(catalogue: Path, tmp_path: Path) -> None:
    database = tmp_path / "read.db"
    build_database(catalogue, database)
    measure = measure_database(database)
    assert measure.size_bytes == database.stat().st_size == measure.pages * 4096
    assert measure.free_pages == 0
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        (tracks,) = connection.execute("SELECT count(*) FROM catalog_tracks").fetchone()
        connection.execute("DELETE FROM catalog_tracks")
    emptied = measure_database(database)
    assert emptied.rows == measure.rows - tracks
    assert emptied.free_pages > 0


@pytest.mark.parametrize(("free_pages", "due"), [(0, False), (25, False), (26, True)])
def test_a_rebuild_is_due_when_more_than_a_quarter_is_free(free_pages: int, due: bool) -> None:
    assert is_rebuild_due(_measure(100 * 4096, free_pages=free_pages), None) == due


@pytest.mark.parametrize(("size_bytes", "due"), [(130_000, False), (130_001, True)])
def test_a_rebuild_is_due_when_a_row_takes_1_3_times_its_room(size_bytes: int, due: bool) -> None:
    assert is_rebuild_due(_measure(size_bytes), _measure(100_000)) == due


def test_a_database_that_grew_with_its_rows_has_not_drifted() -> None:
    assert not is_rebuild_due(_measure(200_000, rows=2000), _measure(100_000))


def test_nothing_is_due_when_nothing_is_known_or_there() -> None:
    assert not is_rebuild_due(_measure(200_000), None)
    assert not is_rebuild_due(_measure(200_000, rows=0), _measure(100_000))
    assert not is_rebuild_due(_measure(200_000), _measure(100_000, rows=0))
