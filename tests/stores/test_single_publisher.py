"""Conditions that are looked up: for a store that ignores the ones it is sent."""

from __future__ import annotations

from typing import BinaryIO

import pytest

from contracts.errors import PreconditionFailed
from stores import Create, MemoryStore, Overwrite, Update
from stores.base import PutMode
from stores.single_publisher import SinglePublisherStore


class CarelessStore(MemoryStore):
    """Answers "written" to everything, as rclone's S3 server does."""

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[PutMode] = []

    def put(self, key: str, body: bytes | BinaryIO, mode: PutMode) -> str:
        self.modes.append(mode)
        return super().put(key, body, Overwrite())


def test_store_that_ignores_conditions_is_asked_first() -> None:
    careless = CarelessStore()
    store = SinglePublisherStore(careless)
    first = store.put("a", b"first", Create())
    store.put("a", b"second", Update(first))
    for mode in (Create(), Update(first), Update("")):
        with pytest.raises(PreconditionFailed):
            store.put("a", b"other", mode)
    with pytest.raises(PreconditionFailed):
        store.put("absent", b"other", Update(first))
    assert careless.objects == {"a": b"second"}


def test_no_condition_is_sent() -> None:
    """A store that does not implement them may refuse them, as Backblaze B2 does."""
    careless = CarelessStore()
    store = SinglePublisherStore(careless)
    store.put("a", b"second", Update(store.put("a", b"first", Create())))
    store.put("a", b"third", Overwrite())
    assert careless.modes == [Overwrite()] * 3
