"""Whatever happens between two exports, a refresh of the first holds the rows of the second."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.read_model import TABLES
from publisher.differences import TableChanges
from publisher.export import build_database
from publisher.known import NOTHING_KNOWN
from publisher.refresh import refresh_database
from tests.publisher import OPTIONAL_TABLES, create_catalogue, read
from tests.publisher.test_rows_property import Catalogue, catalogues

# In the order of docs/format.md, "Row identity".
KEYS = {
    "catalog_playlists": ("playlist_id",),
    "catalog_tracks": ("song_id",),
    "catalog_playlist_tracks": ("playlist_id", "ordinal"),
    "catalog_track_files": ("location_id",),
    "catalog_toplists": ("platform", "toplist_id", "playlist_id"),
}

Keyed = dict[tuple[Any, ...], tuple[Any, ...]]


@st.composite
def edited(draw: st.DrawFn) -> tuple[Catalogue, Catalogue]:
    """Two catalogues that share most tables, or most rows of one.

    The few ids make most other rows updates, deletions, ids that return with other content, playlists in
    another order, texts that stop or begin to be UTF-8, and backends with another base address.
    """
    before, other = draw(catalogues), draw(catalogues)
    after = {}
    for table, rows in before.items():
        match draw(st.sampled_from(["same", "same", "fewer", "more", "other"])):
            case "same":
                after[table] = rows
            case "fewer":
                after[table] = rows[: draw(st.integers(0, len(rows)))]
            case "more":
                ids = {row.get("id") for row in rows} - {None}
                after[table] = rows + [row for row in other[table] if row.get("id") not in ids]
            case _:
                after[table] = other[table]
    return before, after


absent = st.sets(st.sampled_from(OPTIONAL_TABLES), max_size=2)


def keyed(database: Path, table: str) -> Keyed:
    key = ", ".join(KEYS[table])
    return {row[: len(KEYS[table])]: row for row in read(database, f"SELECT {key}, * FROM {table}")}


def naive_changes(before: Keyed, after: Keyed) -> TableChanges:
    return TableChanges(
        len(after.keys() - before.keys()),
        sum(before[key] != after[key] for key in before.keys() & after.keys()),
        len(before.keys() - after.keys()),
    )


def differences(first: Path, second: Path) -> list[tuple[Any, ...]]:
    """Rows, with the types of their values, that only one of two databases has."""
    with closing(sqlite3.connect(first)) as connection:
        connection.execute("ATTACH ? AS other", (str(second),))
        found = []
        for table in TABLES:
            columns = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
            selected = "*, " + ", ".join(f"typeof({column})" for column in columns)
            for left, right in (("main", "other"), ("other", "main")):
                found += connection.execute(
                    f"SELECT {selected} FROM {left}.{table} EXCEPT SELECT {selected} FROM {right}.{table}"
                ).fetchall()
        return found


@given(edited(), absent, absent, st.booleans())
@settings(max_examples=60, deadline=None)
def test_refresh_equals_a_fresh_export(
    edit: tuple[Catalogue, Catalogue], absent_before: set[str], absent_after: set[str], known: bool
) -> None:
    """Row for row, and it has touched exactly the rows that differ, whether it knows the settings or not."""
    before, after = edit
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database, fresh = folder / "refreshed.db", folder / "fresh.db"
        for number, (target, tables, without) in enumerate(
            ((database, before, absent_before), (fresh, after, absent_after))
        ):
            source = create_catalogue(folder / f"{number}.db", tables, without=without, journal_mode="off")
            build_database(source, target)
        expected = {table: naive_changes(keyed(database, table), keyed(fresh, table)) for table in TABLES}
        bytes_before = database.read_bytes()
        known_before = refresh_database(folder / "0.db", database).known if known else NOTHING_KNOWN
        assert bytes_before == database.read_bytes()
        result = refresh_database(source, database, known=known_before)
        assert expected == result.tables
        assert differences(fresh, database) == []
        assert read(database, "PRAGMA integrity_check") == [("ok",)]
        assert result.is_changed == (bytes_before != database.read_bytes())
        bytes_after = database.read_bytes()
        assert not refresh_database(source, database, known=result.known).is_changed
        assert bytes_after == database.read_bytes()
        names = {path.name for path in folder.iterdir()}
        assert {"0.db", "1.db", "refreshed.db", "fresh.db"} == names - {"refreshed.db.assets"}
