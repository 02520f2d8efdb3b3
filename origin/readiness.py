"""Whether the origin could serve a link now: it has a secret, a catalogue that answers, and its folders.

Invariant: what is missing is said by a fixed word, never by a path or a name. The event loop waits for
nothing: each question is asked in a thread, by one at a time and at most once a second, so that strangers
who ask a thousand times cost as much as one, and a disk that hangs holds one thread.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from enum import StrEnum
from pathlib import Path

from origin.lookup import LOOKUP_LIMIT_S, Catalogue, CatalogueUnavailable
from origin.roots import LocatorRefused

KEPT_S = 1.0  # As long as the secrets are believed (origin.key_source).
# What a Kubernetes probe waits for by default. A disk that has to spin up is not ready for so long.
FOLDER_LIMIT_S = 1.0


class Missing(StrEnum):
    """What may be missing; `docs/metrics.md` explains them."""

    SECRET = "secret"
    CATALOGUE = "catalogue"
    ROOT = "root"
    STORE = "store"


class Question:
    """Something about this machine that may take long to find out. Raises nothing; no answer is False.

    `ask` runs in a thread and raises nothing; `clock` gives seconds that never go back.
    """

    def __init__(
        self, ask: Callable[[], bool], limit_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._limit_s = limit_s
        self._clock = clock
        self._asked_s = 0.0
        self._answer: Future[bool] | None = None

    async def is_true(self) -> bool:
        """The answer of at most `KEPT_S` ago; False when there is none in time."""
        now = self._clock()
        if self._answer is None or (self._answer.done() and now - self._asked_s >= KEPT_S):
            self._asked_s = now
            self._answer = _in_thread(self._ask)
        # Not wait_for, which would cancel what others wait for as well.
        waited = asyncio.wrap_future(self._answer)
        done, _ = await asyncio.wait({waited}, timeout=self._limit_s)
        return bool(done) and waited.result()


class Readiness:
    """The questions; `has_secret` is for the caller to know, who has the keys."""

    def __init__(self, db_path: Path, roots: Iterable[Path], store: Path | None) -> None:
        self._roots = tuple(roots)
        self._store = store
        self._catalogue = Catalogue(db_path)
        self._questions = {
            Missing.CATALOGUE: Question(self._catalogue_answers, LOOKUP_LIMIT_S),
            Missing.ROOT: Question(lambda: all(map(_is_readable, self._roots)), FOLDER_LIMIT_S),
            Missing.STORE: Question(lambda: store is None or _is_readable(store), FOLDER_LIMIT_S),
        }

    async def missing(self, has_secret: bool) -> list[Missing]:
        """What is not there now, in the order of `Missing`."""
        answers = await asyncio.gather(*(each.is_true() for each in self._questions.values()))
        found = [] if has_secret else [Missing.SECRET]
        return found + [name for name, is_there in zip(self._questions, answers, strict=True) if not is_there]

    def _catalogue_answers(self) -> bool:
        try:
            self._catalogue.find_backends()
        except LocatorRefused:  # An older catalogue: it answers, and locates nothing.
            return True
        except CatalogueUnavailable:
            return False
        finally:
            self._catalogue.close()
        return True


def _is_readable(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            next(entries, None)
    except OSError:
        return False
    return True


def _in_thread(ask: Callable[[], bool]) -> Future[bool]:
    """Ask in a thread that nobody has to wait for, not even at the end of the process."""
    answer: Future[bool] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except Exception as error:
            answer.set_exception(error)

    try:
        threading.Thread(target=run, name="origin-ready", daemon=True).start()
    except RuntimeError:  # No thread can be had at all.
        answer.set_result(False)
    return answer
