"""Tasks that run together end together, and the first error is the one that is told."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial

import pytest

from publisher.parallel import run_together

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


@pytest.fixture
def connections() -> Iterator[list[sqlite3.Connection]]:
    with ExitStack() as opened:
        yield [
            opened.enter_context(closing(sqlite3.connect(":memory:", check_same_thread=False)))
            for _ in range(3)
        ]


def test_every_task_has_run_when_it_returns(connections: list[sqlite3.Connection]) -> None:
    tasks = [partial(connection.execute, "CREATE TABLE t(x)") for connection in connections]
    run_together(*tasks, connections=connections)
    assert [connection.execute("SELECT count(*) FROM t").fetchone() for connection in connections] == [
        (0,)
    ] * 3


def test_first_task_runs_in_the_calling_thread() -> None:
    names: list[str] = []
    run_together(lambda: names.append(threading.current_thread().name), connections=[])
    assert [threading.current_thread().name] == names


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_error_of_one_task_stops_the_others_and_is_raised(
    connections: list[sqlite3.Connection], failing: int
) -> None:
    """The others run statements that would never end; theirs is the second error."""
    threads = set(threading.enumerate())
    tasks = [partial(connection.execute, ENDLESS) for connection in connections]
    tasks[failing] = partial(connections[failing].execute, "SELECT * FROM nowhere")
    with pytest.raises(sqlite3.OperationalError, match="no such table: nowhere"):
        run_together(*tasks, connections=connections)
    assert set(threading.enumerate()) <= threads  # one that another test has left may end meanwhile


def test_connections_work_after_a_failure(connections: list[sqlite3.Connection]) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_together(fail, partial(connections[1].execute, ENDLESS), connections=connections)
    count = f"SELECT count(*) FROM ({ENDLESS.replace('FROM n)', 'FROM n WHERE i < 500000)')})"
    assert [connection.execute(count).fetchone() for connection in connections] == [(1,)] * 3
