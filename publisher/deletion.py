"""Deletes what the pointer says is condemned, while it says so.

Invariant: a request to delete is sent only when the pointer was looked at a short while ago and still named
the list that the object stands in: a process that was stopped, or a machine that slept, does not go on where
it was. One request may still be on its way for longer; publisher/prune.py allows for that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from contracts.errors import StoreUnavailable
from publisher.pointer import fetch_pointer
from stores.base import ListedObject, Store
from stores.progress import Progress

DELETES_AT_ONCE = 8  # what waits is the answer, not the line
_BATCH = 64  # objects between two looks at the pointer: some seconds of a slow store
_LOOK_S = 30.0  # how long what was seen there counts
_FRUITLESS_LOOKS = 5


class Look:
    """When the pointer was last looked at, by two clocks: the first may stand still in a machine's sleep."""

    def __init__(self, clock_s: Callable[[], float], now: Callable[[], datetime]) -> None:
        self._clock_s, self._now = clock_s, now
        self._at_s, self._at = clock_s(), now()

    def is_fresh(self) -> bool:
        """Whether what was seen still counts."""
        passed = abs(self._now() - self._at)
        return self._clock_s() - self._at_s < _LOOK_S and passed < timedelta(seconds=_LOOK_S)


def delete_condemned(
    store: Store,
    condemned: str,
    candidates: Sequence[ListedObject],
    look: Callable[[], Look],
    progress: Progress,
    at_once: int = DELETES_AT_ONCE,
) -> list[ListedObject]:
    """Delete these objects while the pointer names the list `condemned`; returns those that are deleted.

    `look` gives a look that begins now. With `at_once` 1 everything happens in the thread that calls.
    Raises:
        StoreUnavailable: also when the store takes so long that no look is of use.
        AccessDenied, StoreError: as the store does.
    """
    progress.begin("delete", sum(found.size_bytes for found in candidates))
    waiting = deque(candidates)
    deleted: list[ListedObject] = []
    fruitless = 0
    with ThreadPoolExecutor(at_once, "delete") as executor:
        while waiting:
            seen = look()
            pointer = fetch_pointer(store)
            if pointer is None or pointer.manifest.condemned != condemned:
                break
            batch = [waiting.popleft() for _ in range(min(_BATCH, len(waiting)))]

            def delete(found: ListedObject, seen: Look = seen) -> bool:
                if not seen.is_fresh():
                    return False
                store.delete(found.key)
                progress.add(found.size_bytes)
                return True

            done = [*(map(delete, batch) if at_once == 1 else executor.map(delete, batch))]
            deleted += [found for found, is_done in zip(batch, done, strict=True) if is_done]
            waiting.extendleft(found for found, is_done in zip(batch, done, strict=True) if not is_done)
            fruitless = 0 if any(done) else fruitless + 1
            if fruitless == _FRUITLESS_LOOKS:
                raise StoreUnavailable(
                    f"{store.address} takes longer than {_LOOK_S:.0f} s to answer; {len(deleted)} objects "
                    "were deleted, the next prune goes on"
                )
    return deleted
