"""Statements on several connections at once: SQLite lets go of Python's lock while it steps.

Invariant: when `run_together` returns or raises, nothing runs any more; what it raises is the first error,
not one that stopping the others made.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

_STEPS_BETWEEN_LOOKS = 100_000  # instructions of SQLite's virtual machine, together some milliseconds


def run_together(*tasks: Callable[[], object], connections: Sequence[sqlite3.Connection]) -> None:
    """Run the first task in this thread and each other in a thread of its own.

    When one fails, what runs on any of the connections is interrupted. A connection that another thread uses
    needs `check_same_thread=False`.
    Raises:
        BaseException: what the task raised that failed first.
    """
    failures: list[BaseException] = []

    def run(task: Callable[[], object]) -> None:
        try:
            task()
        except BaseException as error:
            failures.append(error)

    for connection in connections:
        connection.set_progress_handler(lambda: bool(failures), _STEPS_BETWEEN_LOOKS)
    with ThreadPoolExecutor(len(tasks)) as pool:
        others = [pool.submit(run, task) for task in tasks[1:]]
        run(tasks[0])
        run(lambda: wait(others))  # here Ctrl-C arrives while the others still work
    for connection in connections:
        connection.set_progress_handler(None, 0)
    if failures:
        raise failures[0]
