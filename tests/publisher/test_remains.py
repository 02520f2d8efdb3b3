"""Nothing of a row that was deleted is left in the file: docs/format.md, "The read model"."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from contracts.read_model import PAGE_BYTES, TABLES
from music_cloud.sample import create_catalogue
from publisher import PublishOptions, publish
from publisher.export import build_database
from publisher.remains import erase_remains
from publisher.state import State
from stores import MemoryStore

_SMALL = PublishOptions(segment_bytes=64 << 10, level=1)


class _Songs:
    """Songs whose names are unique marks; remembers which marks no song has any more."""

    def __init__(self, catalogue: Path, seed: int) -> None:
        self._catalogue = catalogue
        self._random = random.Random(seed)
        self._made = 0
        self._live: dict[int, str] = {}
        self.dead: set[str] = set()

    def churn(self) -> None:
        """Rename, delete and insert: rows grow and shrink, so that pages are split and evened out."""
        with closing(sqlite3.connect(self._catalogue)) as connection:
            ids = [song_id for (song_id,) in connection.execute("SELECT id FROM songs")]
            for song_id in self._random.sample(ids, 40):
                connection.execute("UPDATE songs SET name = ? WHERE id = ?", (self._mark(song_id), song_id))
            for song_id in self._random.sample(sorted(self._live), 12):
                self.dead.add(self._live.pop(song_id))
                connection.execute("DELETE FROM songs WHERE id = ?", (song_id,))
            for song_id in self._random.sample(range(max(ids) + 1, max(ids) + 1000), 20):
                row = (song_id, "qq", str(song_id), self._mark(song_id))
                connection.execute(
                    "INSERT INTO songs(id, platform, remote_song_id, name) VALUES (?, ?, ?, ?)", row
                )
            connection.commit()

    def _mark(self, song_id: int) -> str:
        self._made += 1
        mark = f"<mark {self._made}>"
        if song_id in self._live:
            self.dead.add(self._live[song_id])
        self._live[song_id] = mark
        return mark + "~" * self._random.randrange(200)


@pytest.mark.parametrize("seed", [1, 2])
def test_no_text_of_a_row_that_is_gone_is_in_what_is_published(seed: int, tmp_path: Path) -> None:
    """Without `erase_remains`, two thirds of these publishes hold some."""
    catalogue, state = tmp_path / "catalogue.db", State(tmp_path / "state")
    create_catalogue(catalogue, songs=1000)
    songs, store = _Songs(catalogue, seed), MemoryStore()
    publish(catalogue, store, state.folder, _SMALL)
    for _ in range(12):
        songs.churn()
        result = publish(catalogue, store, state.folder, _SMALL)
        database = state.database_path(result.manifest.database)
        content = database.read_bytes()
        assert [mark for mark in songs.dead if mark.encode() in content] == []
        with closing(sqlite3.connect(database)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_erasing_changes_no_row(catalogue: Path, tmp_path: Path) -> None:
    database = tmp_path / "read.db"
    build_database(catalogue, database)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA secure_delete=OFF")
        connection.execute("DELETE FROM catalog_tracks WHERE song_id % 3 = 0")
        connection.execute("UPDATE catalog_tracks SET name = name || name WHERE song_id % 5 = 0")
        connection.commit()
        before = [connection.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES]
    erase_remains(database)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert before == [connection.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES]


def test_only_the_pages_that_are_named_are_touched(tmp_path: Path) -> None:
    """Made by hand: leaf pages of a table with one cell pointer, and remains everywhere else."""
    header = bytes([13, 0, 0, 0, 1, 0x0F, 0x00, 0])  # cells begin at 0x0F00
    leaf = (header + b"\x0f\x00").ljust(PAGE_BYTES, b"r")
    path = tmp_path / "pages.db"
    path.write_bytes(b"S" * PAGE_BYTES + leaf + leaf)
    erase_remains(path, [0, 2])
    content = path.read_bytes()
    assert content[: 2 * PAGE_BYTES] == b"S" * PAGE_BYTES + leaf
    assert content[2 * PAGE_BYTES :] == leaf[:10] + bytes(0xF00 - 10) + leaf[0xF00:]


def test_a_second_time_nothing_is_left_to_erase(catalogue: Path, tmp_path: Path) -> None:
    database = tmp_path / "read.db"
    build_database(catalogue, database)
    content = database.read_bytes()
    erase_remains(database)
    assert database.read_bytes() == content
