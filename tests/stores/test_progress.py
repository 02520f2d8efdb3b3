"""Progress counts what has moved, from any thread, and shows what is moving."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import pytest

from contracts.layout import blob_key
from stores import Create, MemoryStore, Progress

Seen = tuple[str, int, int]


def test_stage_begins_at_nothing_and_adds_up() -> None:
    seen: list[Seen] = []
    progress = Progress(lambda *what: seen.append(what))
    progress.begin("upload", 30)
    progress.add(10)
    progress.add(20)
    progress.begin("swap")
    assert seen == [("upload", 0, 30), ("upload", 10, 30), ("upload", 30, 30), ("swap", 0, 0)]


def test_bytes_of_all_threads_are_counted() -> None:
    seen: list[Seen] = []
    progress = Progress(lambda *what: seen.append(what))
    progress.begin("download", 800)
    with ThreadPoolExecutor(8) as executor:
        list(executor.map(progress.add, [1] * 800))
    assert [done for _, done, _ in seen] == list(range(801))


def test_stream_that_is_watched_shows_how_far_it_is_and_counts_nothing() -> None:
    """A body may be read twice, once for its checksum: only what was sent is added."""
    seen: list[Seen] = []
    progress = Progress(lambda *what: seen.append(what))
    progress.begin("upload", 100)
    progress.add(40)
    body = progress.watch(BytesIO(b"x" * 10))
    assert (body.read(4), body.tell()) == (b"xxxx", 4)
    body.seek(0)
    MemoryStore().put(blob_key("0" * 64), body, Create())
    assert seen[2:] == [("upload", 44, 100), ("upload", 50, 100)]
    progress.add(10)
    assert seen[-1] == ("upload", 50, 100)


def test_observer_that_raises_stops_whoever_moves_the_bytes() -> None:
    """And the next one can still be told."""
    calls = 0

    def stop_once(stage: str, done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt

    progress = Progress(stop_once)
    progress.begin("upload", 10)
    with pytest.raises(KeyboardInterrupt):
        progress.add(1)
    progress.add(1)
    assert calls == 3


def test_without_an_observer_nothing_happens() -> None:
    progress = Progress()
    progress.begin("upload")
    progress.add(1)
    assert progress.watch(BytesIO(b"x")).read() == b"x"
