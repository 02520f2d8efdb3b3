"""An export while other programs write: one consistent moment, and no writer is ever refused.

How long a writer waits is measured by `benchmarks/export.py`.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from music_cloud.sample import create_catalogue as create_sample
from publisher import rows
from publisher.export import build_database
from tests.publisher import create_catalogue, export, read

BALANCE = 1000
PACE_S = 0.002  # the writer's rest between two commits
# Each commit moves one from a row that is exported first to one that is exported last, and to one in between.
MOVE = (
    "UPDATE playlists SET play_count = play_count - 1 WHERE id = 1",
    "UPDATE songs SET file_size_bytes = file_size_bytes + 1 WHERE id = 1",
    "UPDATE file_assets SET file_size_bytes = file_size_bytes + 1 WHERE id = 1",
)
BALANCES = (
    "SELECT (SELECT play_count FROM catalog_playlists WHERE playlist_id = 1),"
    " (SELECT file_size_bytes FROM catalog_tracks WHERE song_id = 1),"
    " (SELECT file_size_bytes FROM catalog_track_files WHERE song_id = 1 LIMIT 1)"
)


def commit(writer: sqlite3.Connection) -> None:
    writer.execute("BEGIN IMMEDIATE")
    for statement in MOVE:
        writer.execute(statement)
    writer.execute("COMMIT")


@pytest.mark.parametrize("journal_mode", ["wal", "delete", "truncate", "persist"])
def test_commit_in_the_middle_is_neither_refused_nor_seen(
    tmp_path: Path, journal_mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer commits while tracks are exported: after the playlists, before the files."""
    source = create_catalogue(
        tmp_path / "c.db",
        {
            "playlists": [{"id": 1, "play_count": BALANCE}],
            "songs": [{"id": 1, "file_size_bytes": 0, "metadata_json": "{}"}],
            "storage_backends": [{"id": 1, "backend_type": "nas"}],
            "file_assets": [{"id": 1, "song_id": 1, "file_size_bytes": 0}],
            "file_locations": [
                {"id": 1, "file_asset_id": 1, "backend_id": 1, "locator": "a", "status": "active"}
            ],
        },
        journal_mode=journal_mode,
    )
    commits = 0
    with closing(sqlite3.connect(source, isolation_level=None, timeout=0)) as writer:

        def commit_now(stored: bytes | None) -> bytes | None:
            nonlocal commits
            commit(writer)
            commits += 1
            return stored

        monkeypatch.setattr(rows, "public_metadata", lambda *_: commit_now)
        database = export(source)
    assert commits == 1
    assert read(database, BALANCES) == [(BALANCE, 0, 0)]
    assert read(source, "SELECT play_count FROM playlists") == [(BALANCE - 1,)]


class Writer(threading.Thread):
    """Commits some hundred times a second, with the 5 seconds of patience that Python's own module has."""

    def __init__(self, source: Path) -> None:
        super().__init__()
        self.commits = 0
        self.refused: Exception | None = None
        self.started = threading.Event()
        self.stopped = threading.Event()
        self._source = source

    def run(self) -> None:
        try:
            with closing(sqlite3.connect(self._source, isolation_level=None, timeout=5)) as connection:
                while not self.stopped.wait(PACE_S):
                    commit(connection)
                    self.commits += 1
                    self.started.set()
        except sqlite3.Error as error:
            self.refused = error
        finally:
            self.started.set()


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_export_under_constant_writing_is_one_moment(tmp_path: Path, journal_mode: str) -> None:
    """The catalogue has more pages than one step of a copy takes, so the writer gets in between."""
    source = tmp_path / "catalogue.db"
    create_sample(source, songs=12_000)
    with closing(sqlite3.connect(source, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode={journal_mode}")
        connection.execute("UPDATE playlists SET play_count = 0 WHERE id = 1")
        connection.execute("UPDATE songs SET file_size_bytes = 0 WHERE id = 1")
        connection.execute("UPDATE file_assets SET song_id = 1, file_size_bytes = 0 WHERE id = 1")
        connection.execute("UPDATE file_assets SET song_id = 2 WHERE song_id = 1 AND id > 1")
        connection.execute("UPDATE file_locations SET status = 'active' WHERE file_asset_id = 1")
    writer = Writer(source)
    writer.start()
    try:
        for number in range(2):
            assert writer.started.wait(30)
            before = writer.commits
            database = tmp_path / f"{number}.db"
            build_database(source, database)
            ((first, second, third),) = read(database, BALANCES)
            assert before <= second <= writer.commits
            assert (first, second, third) == (-second, second, second)
    finally:
        writer.stopped.set()
        writer.join()
    assert writer.refused is None
    assert writer.commits > before
