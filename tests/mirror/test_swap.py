"""Readers through fifty swaps: not one query may fail, on any platform."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

from mirror import Mirror
from music_cloud.sample import evolve
from publisher import PublishOptions, publish
from stores import MemoryStore

SWAPS = 50
READERS = 3
QUERY = "SELECT count(*), max(song_id), sum(length(name)) FROM catalog_tracks"


class Reader(threading.Thread):
    """Queries without pause; now with a new connection, now with one that it has kept for a while."""

    def __init__(self, folder: Path, stop: threading.Event) -> None:
        super().__init__()
        self.queries = 0
        self.failures: list[Exception] = []
        self.generations: set[str] = set()
        self._mirror = Mirror(folder)
        self._stop_event = stop

    def run(self) -> None:
        while not self._stop_event.is_set():
            try:
                with closing(self._mirror.connect()) as connection:
                    (_, _, path) = connection.execute("PRAGMA database_list").fetchone()
                    self.generations.add(path)
                    answers = {connection.execute(QUERY).fetchone() for _ in range(5)}
                assert len(answers) == 1, "one connection saw two databases"
                self.queries += 5
            except Exception as error:
                self.failures.append(error)


def test_no_query_fails_through_fifty_swaps(catalogue: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    options = PublishOptions(level=1)
    publish(catalogue, store, tmp_path / "state", options)
    mirror = Mirror(tmp_path / "mirror", store, unsigned=True)
    mirror.sync()
    stop = threading.Event()
    readers = [Reader(tmp_path / "mirror", stop) for _ in range(READERS)]
    for reader in readers:
        reader.start()
    try:
        for seed in range(1, SWAPS + 1):
            evolve(catalogue, churn="hour", seed=seed)
            publish(catalogue, store, tmp_path / "state", options)
            assert mirror.sync().outcome == "updated"
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert [failure for reader in readers for failure in reader.failures] == []
    assert sum(reader.queries for reader in readers) > SWAPS
    assert len(set().union(*(reader.generations for reader in readers))) > 10
