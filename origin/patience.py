"""Waiting for what a thread does, but not for ever: one limit, and one timer however many wait.

Invariant: nobody waits longer than the limit, and a task that is cancelled from outside stays cancelled. A
timer for each, as `asyncio.wait_for` has, costs a fifth of all that a 1 MiB range takes
(benchmarks/origin_portable.py).
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_LOOKS_PER_LIMIT = 5  # So whoever is given up has waited between 80 % and all of the limit.


class Patience:
    """Waits at most `limit_s` seconds; for use in one event loop at a time."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._interval_s = limit_s / _LOOKS_PER_LIMIT
        self._since: dict[asyncio.Future[Any], float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None  # Where the timer runs; None: it does not.

    async def wait(self, work: Future[T]) -> T:
        """The result of `work`, or its exception.

        Raises:
            TimeoutError: it took too long; it is cancelled if it has not begun, otherwise it ends unheard.
        """
        loop = asyncio.get_running_loop()
        waited = asyncio.wrap_future(work)
        self._since[waited] = loop.time()
        if self._loop is not loop:  # The first to wait, or another loop than last time.
            self._loop = loop
            loop.call_later(self._interval_s, self._look, loop)
        try:
            return await waited
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise TimeoutError(f"no answer in {self._limit_s} s") from None
        finally:
            del self._since[waited]

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for waited, since in self._since.items():
            if now - since > self._limit_s - self._interval_s:
                waited.cancel()
        if self._since:
            loop.call_later(self._interval_s, self._look, loop)
        else:
            self._loop = None
