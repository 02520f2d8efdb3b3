"""Several connections read the catalogue as it was at one moment, whenever its writer commits."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import SourceError
from publisher import source as source_module
from publisher.source import attached_source
from tests.publisher import create_catalogue

SIZE = "SELECT file_size_bytes FROM source.songs"


class Watched(sqlite3.Connection):
    """A connection that says when it begins a transaction."""

    before_begin: Callable[[], None]

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql == "BEGIN":
            self.before_begin()
        return super().execute(sql, *parameters)


@pytest.fixture
def readers() -> Iterator[list[Watched]]:
    with ExitStack() as opened:
        yield [
            opened.enter_context(
                closing(sqlite3.connect(":memory:", uri=True, isolation_level=None, factory=Watched))
            )
            for _ in range(3)
        ]


def commit_before_begin(source: Path, readers: list[Watched], reader: int, times: int) -> None:
    """A writer commits before this reader begins, so often: after the readers in front of it have."""

    def commit() -> None:
        nonlocal times
        if times:
            times -= 1
            with closing(sqlite3.connect(source, isolation_level=None, timeout=0)) as writer:
                writer.execute("UPDATE songs SET file_size_bytes = file_size_bytes + 1")

    for number, watched in enumerate(readers):
        watched.before_begin = commit if number == reader else lambda: None


@pytest.mark.parametrize("reader", [0, 1, 2])
@pytest.mark.parametrize("times", [0, 1, 3])
def test_commit_while_readers_begin_is_seen_by_all_or_none(
    tmp_path: Path, readers: list[Watched], reader: int, times: int
) -> None:
    source = create_catalogue(tmp_path / "c.db", {"songs": [{"id": 1, "file_size_bytes": 0}]})
    commit_before_begin(source, readers, reader, times)
    with attached_source(readers, source, tmp_path):
        assert [(times,)] * 3 == [connection.execute(SIZE).fetchone() for connection in readers]


def test_commit_after_readers_began_is_seen_by_none(tmp_path: Path, readers: list[Watched]) -> None:
    source = create_catalogue(tmp_path / "c.db", {"songs": [{"id": 1, "file_size_bytes": 0}]})
    commit_before_begin(source, readers, 0, 0)
    with (
        attached_source(readers, source, tmp_path),
        closing(sqlite3.connect(source, isolation_level=None, timeout=0)) as writer,
    ):
        writer.execute("UPDATE songs SET file_size_bytes = 1")
        assert [connection.execute(SIZE).fetchone() for connection in readers] == [(0,)] * 3


def test_commit_to_a_rollback_journal_does_not_disturb_readers_of_its_copy(
    tmp_path: Path, readers: list[Watched]
) -> None:
    songs = {"songs": [{"id": 1, "file_size_bytes": 0}]}
    source = create_catalogue(tmp_path / "c.db", songs, journal_mode="delete")
    commit_before_begin(source, readers, 1, 1)
    with attached_source(readers, source, tmp_path):
        assert [connection.execute(SIZE).fetchone() for connection in readers] == [(0,)] * 3


def test_writer_that_never_rests_is_an_error_and_leaves_nothing_open(
    tmp_path: Path, readers: list[Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "_BEGIN_ATTEMPTS", 3)
    source = create_catalogue(tmp_path / "c.db", {"songs": [{"id": 1, "file_size_bytes": 0}]})
    commit_before_begin(source, readers, 1, 100)
    with (
        pytest.raises(SourceError, match="another program keeps the database locked"),
        attached_source(readers, source, tmp_path),
    ):
        pytest.fail("the readers do not see one moment")
    for connection in readers:
        assert not connection.in_transaction
        assert [name for _, name, _ in connection.execute("PRAGMA database_list")] == ["main"]
