"""How far refreshes have blown a database up, beside a fresh export of the same rows.

Invariant: nothing is written. What a rebuild would gain is not guessed: a database is compared with the last
one that was built anew, by its bytes for each row.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

from contracts.read_model import TABLES

_FREE_PART_DUE = 4  # a quarter: free pages are in every keyframe, and only a new export gives them back
_GROWTH_DUE = 1.3  # 24 rounds of refresh added 2.6 % when it was tried: this is months of them


class Measure(msgspec.Struct, frozen=True):
    """The size of a database: bytes of its file, rows in all of its tables, free pages."""

    size_bytes: int
    rows: int
    pages: int
    free_pages: int


def measure_database(path: Path) -> Measure:
    """The size of the database in this file.

    Raises:
        sqlite3.Error: when it cannot be read.
    """
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        counted = " + ".join(f"(SELECT count(*) FROM {name})" for name in TABLES)
        (rows,) = connection.execute(f"SELECT {counted}").fetchone()
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    return Measure(path.stat().st_size, rows, pages, free)


def is_rebuild_due(measure: Measure, rebuilt: Measure | None) -> bool:
    """Whether more than a quarter is free, or a row takes 1.3 times what it took in the last fresh export."""
    if measure.free_pages * _FREE_PART_DUE > measure.pages:
        return True
    if rebuilt is None or not rebuilt.rows or not measure.rows:
        return False
    return measure.size_bytes / measure.rows > _GROWTH_DUE * rebuilt.size_bytes / rebuilt.rows
