"""Answers that are remembered for a moment: never longer than their life, never more than so many.

Invariant: what is given back was put in less than `life_s` ago, for the same version of whatever it was
answered from. Nothing is locked: one event loop has each of these.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """At most `size` answers, each for `life_s` seconds. `now` is any clock's that never goes back."""

    def __init__(self, size: int, life_s: float) -> None:
        self._size = size
        self._life_s = life_s
        self._entries: dict[K, tuple[V, object, float]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K, version: object, now: float) -> V | None:
        """The answer, if it still counts."""
        entry = self._entries.get(key)
        if entry is None or now >= entry[2] or entry[1] != version:
            return None
        return entry[0]

    def put(self, key: K, value: V, version: object, asked_at: float) -> None:
        """Remember what was asked for at that moment, when this was the version."""
        entries = self._entries
        entries.pop(key, None)  # So that the order is that of time, and the first is the oldest.
        while entries:
            oldest = next(iter(entries))
            if len(entries) < self._size and asked_at < entries[oldest][2]:
                break
            del entries[oldest]
        entries[key] = (value, version, asked_at + self._life_s)
